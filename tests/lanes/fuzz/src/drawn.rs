//! As much of `proptest` as `tests/properties` use, drawn from bytes: each choice takes as few of them as it needs, in order, so
//! that a changed byte changes one choice, and bytes that are put in or taken out put in or take out an operation.
//!
//! Its own passthrough generator halves what is left at each alternative, and again for each one that it could shrink to:
//! after two operations there is nothing left. Where the bytes end, each choice is the first one.

use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;

pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// A number below `end`, from as many bytes as that needs.
    fn below(&mut self, end: u64) -> u64 {
        let (mut number, mut most) = (0, end.saturating_sub(1));
        while most > 0 {
            number = number << 8 | u64::from(self.next());
            most >>= 8;
        }
        number % end.max(1)
    }
}

pub(crate) trait Strategy {
    type Value;

    fn draw(&self, bytes: &mut Bytes<'_>) -> Self::Value;

    fn prop_map<T, F: Fn(Self::Value) -> T>(self, map: F) -> Map<Self, F>
    where
        Self: Sized,
    {
        Map(self, map)
    }

    fn boxed(self) -> Boxed<Self::Value>
    where
        Self: Sized + 'static,
    {
        Boxed(Rc::new(self))
    }

    /// So many levels; how large it gets is up to the bytes.
    fn prop_recursive<R: Strategy<Value = Self::Value> + 'static>(
        self,
        depth: u32,
        _: u32,
        _: u32,
        level: impl Fn(Boxed<Self::Value>) -> R,
    ) -> Boxed<Self::Value>
    where
        Self: Sized + 'static,
    {
        (0..depth).fold(self.boxed(), |inner, _| level(inner).boxed())
    }
}

#[derive(Clone)]
pub(crate) struct Map<S, F>(S, F);

impl<S: Strategy, T, F: Fn(S::Value) -> T> Strategy for Map<S, F> {
    type Value = T;

    fn draw(&self, bytes: &mut Bytes<'_>) -> T {
        self.1(self.0.draw(bytes))
    }
}

pub(crate) struct Boxed<T>(Rc<dyn Strategy<Value = T>>);

impl<T> Clone for Boxed<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Strategy for Boxed<T> {
    type Value = T;

    fn draw(&self, bytes: &mut Bytes<'_>) -> T {
        self.0.draw(bytes)
    }
}

/// Always the same.
#[derive(Clone)]
pub(crate) struct Just<T>(pub(crate) T);

impl<T: Clone> Strategy for Just<T> {
    type Value = T;

    fn draw(&self, _: &mut Bytes<'_>) -> T {
        self.0.clone()
    }
}

/// One of several, each with its weight.
#[derive(Clone)]
pub(crate) struct OneOf<T>(pub(crate) Vec<(u32, Boxed<T>)>);

impl<T> Strategy for OneOf<T> {
    type Value = T;

    fn draw(&self, bytes: &mut Bytes<'_>) -> T {
        let sum: u64 = self.0.iter().map(|(weight, _)| u64::from(*weight)).sum();
        let mut left = bytes.below(sum);
        for (weight, strategy) in &self.0 {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return strategy.draw(bytes),
            }
        }
        unreachable!("it is below the sum of the weights")
    }
}

macro_rules! prop_oneof {
    ($($weight:expr => $strategy:expr),+ $(,)?) => {
        crate::drawn::OneOf(vec![$(($weight, crate::drawn::Strategy::boxed($strategy))),+])
    };
    ($($strategy:expr),+ $(,)?) => {
        crate::drawn::OneOf(vec![$((1, crate::drawn::Strategy::boxed($strategy))),+])
    };
}
pub(crate) use prop_oneof;

macro_rules! numbers {
    ($($number:ty)*) => {
        $(
            impl Strategy for Range<$number> {
                type Value = $number;

                fn draw(&self, bytes: &mut Bytes<'_>) -> $number {
                    self.start + bytes.below((self.end - self.start) as u64) as $number
                }
            }
        )*
    };
}

numbers!(u8 u16 u32 u64 usize i64);

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: Strategy),*> Strategy for ($($name,)*) {
            type Value = ($($name::Value,)*);

            #[expect(non_snake_case, reason = "they are called as their types are")]
            fn draw(&self, bytes: &mut Bytes<'_>) -> Self::Value {
                let ($($name,)*) = self;
                ($($name.draw(bytes),)*)
            }
        }
    };
}

tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);

/// Any value of a type.
#[derive(Clone)]
pub(crate) struct Any<T>(PhantomData<T>);

pub(crate) fn any<T>() -> Any<T> {
    Any(PhantomData)
}

impl Strategy for Any<u8> {
    type Value = u8;

    fn draw(&self, bytes: &mut Bytes<'_>) -> u8 {
        bytes.next()
    }
}

impl Strategy for Any<bool> {
    type Value = bool;

    fn draw(&self, bytes: &mut Bytes<'_>) -> bool {
        bytes.next() & 1 == 1
    }
}

pub(crate) mod prelude {
    pub(crate) use super::{Just, Strategy, any, prop_oneof};
}

pub(crate) mod collection {
    use std::ops::Range;

    use super::{Bytes, Strategy};

    /// Before each but the first ones, a byte says whether there is another, and so do bytes that are at their end.
    #[derive(Clone)]
    pub(crate) struct Many<S>(S, Range<usize>);

    pub(crate) fn vec<S: Strategy>(strategy: S, size: Range<usize>) -> Many<S> {
        Many(strategy, size)
    }

    impl<S: Strategy> Strategy for Many<S> {
        type Value = Vec<S::Value>;

        fn draw(&self, bytes: &mut Bytes<'_>) -> Self::Value {
            let Self(strategy, size) = self;
            let mut all = Vec::new();
            while all.len() + 1 < size.end {
                let goes_on = bytes.next() as usize % size.end != 0;
                if !goes_on && all.len() >= size.start {
                    break;
                }
                all.push(strategy.draw(bytes));
            }
            all
        }
    }
}

pub(crate) mod option {
    use super::{Bytes, Strategy};

    #[derive(Clone)]
    pub(crate) struct Maybe<S>(S, u8);

    pub(crate) fn of<S: Strategy>(strategy: S) -> Maybe<S> {
        weighted(0.5, strategy)
    }

    pub(crate) fn weighted<S: Strategy>(probability: f64, strategy: S) -> Maybe<S> {
        Maybe(strategy, (256.0 * (1.0 - probability)) as u8)
    }

    impl<S: Strategy> Strategy for Maybe<S> {
        type Value = Option<S::Value>;

        fn draw(&self, bytes: &mut Bytes<'_>) -> Self::Value {
            (bytes.next() >= self.1).then(|| self.0.draw(bytes))
        }
    }
}

pub(crate) mod sample {
    use super::{Bytes, Strategy};

    #[derive(Clone)]
    pub(crate) struct Select<T: 'static>(&'static [T]);

    pub(crate) fn select<T: Clone>(list: &'static [T]) -> Select<T> {
        Select(list)
    }

    impl<T: Clone> Strategy for Select<T> {
        type Value = T;

        fn draw(&self, bytes: &mut Bytes<'_>) -> T {
            self.0[bytes.below(self.0.len() as u64) as usize].clone()
        }
    }
}

pub(crate) mod test_runner {
    use std::fmt;

    /// Where the crate and the model parted.
    #[derive(Debug)]
    pub(crate) struct TestCaseError(String);

    impl TestCaseError {
        pub(crate) fn fail(text: impl Into<String>) -> Self {
            Self(text.into())
        }
    }

    impl fmt::Display for TestCaseError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0)
        }
    }
}
