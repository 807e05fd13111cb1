//! The shapes that users write compile, run, and are `Send`: `?` out of a scope for every common error type, and scopes
//! in all places where a task may hold one.

use std::{
    error::Error,
    fmt::{Debug, Display},
    io,
    pin::Pin,
    time::Duration,
};

use futures::future::{join_all, select, try_join_all};
use ringfence::{
    BoxError, Elapsed, GroupError, Outcome, Scope, ScopeBody, Spawner, TaskGroup, scope, timeout,
};
use tokio::runtime::{Builder, Runtime};

/// Runs a future as a task of a runtime with two workers: it has to be `Send`, and to work there.
#[track_caller]
fn in_a_task<F: Future<Output: Send> + Send + 'static>(future: F) -> F::Output {
    two_workers().block_on(async {
        #[expect(clippy::disallowed_methods, reason = "what is tested is a plain task")]
        let task = tokio::spawn(future);
        task.await.expect("no panic")
    })
}

fn two_workers() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    builder.build().expect("a runtime")
}

// ---------------------------------------------------------------------------------------------------------------
// `?`
// ---------------------------------------------------------------------------------------------------------------

#[derive(Debug, thiserror::Error)]
enum AppError {
    #[error("not found")]
    NotFound,
    #[error("i/o")]
    Io(#[from] io::Error),
    #[error("scope")]
    Scope(#[from] GroupError<io::Error>),
}

fn not_found() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such file")
}

async fn read(exists: bool) -> Result<u32, io::Error> {
    if exists { Ok(1) } else { Err(not_found()) }
}

async fn app(exists: bool) -> Result<u32, AppError> {
    if exists {
        Ok(2)
    } else {
        Err(AppError::NotFound)
    }
}

fn assert_error<E: Error + Send + Sync + 'static>(error: &E) {
    assert!(error.source().is_none(), "the chain is in the entries");
}

#[test]
fn a_group_error_is_an_error_for_whatever_prints_itself() {
    fn is_error<E: Debug + Display + Send + Sync + 'static>() -> fn(&GroupError<E>) {
        assert_error::<GroupError<E>>
    }
    let _: fn(&GroupError<AppError>) = is_error();
    let _: fn(&GroupError<io::Error>) = is_error();
    let _: fn(&GroupError<anyhow::Error>) = is_error();
    let _: fn(&GroupError<BoxError>) = is_error();
    let _: fn(&GroupError<Box<dyn Error + Send + Sync>>) = is_error();
    let _: fn(&GroupError<String>) = is_error();
}

#[test]
fn an_enum_into_anyhow_and_into_a_box() {
    async fn work() -> Result<u32, GroupError<AppError>> {
        scope(async |group| {
            let a = group.spawn(app(true));
            let b = group.spawn(async { Ok(read(false).await?) });
            Ok(a.await + b.await)
        })
        .await
    }
    async fn into_anyhow() -> anyhow::Result<u32> {
        Ok(work().await?)
    }
    async fn into_box() -> Result<u32, Box<dyn Error>> {
        Ok(work().await?)
    }
    async fn into_itself() -> Result<u32, AppError> {
        work()
            .await
            .map_err(|error| error.into_first().expect("a failure"))
    }
    let error = in_a_task(into_anyhow()).expect_err("a child failed");
    let group = error.downcast_ref::<GroupError<AppError>>();
    assert!(matches!(
        group.and_then(GroupError::first),
        Some(AppError::Io(_))
    ));
    assert!(matches!(in_a_task(into_itself()), Err(AppError::Io(_))));
    let boxed = in_a_task(async { into_box().await.map_err(|error| error.to_string()) });
    assert!(boxed.is_err_and(|text| text.contains("i/o")));
}

#[test]
fn an_io_error_into_anyhow_into_a_box_and_into_an_enum() {
    // Nothing is annotated: the first child that can fail says what the error is.
    async fn into_anyhow() -> anyhow::Result<u32> {
        Ok(scope(async |group| Ok(group.spawn(read(false)).await)).await?)
    }
    async fn into_box() -> Result<u32, Box<dyn Error + Send + Sync>> {
        Ok(scope(async |group| Ok(group.spawn(read(false)).await)).await?)
    }
    async fn into_an_enum() -> Result<u32, AppError> {
        Ok(scope(async |group| Ok(group.spawn(read(false)).await)).await?)
    }
    assert!(in_a_task(into_anyhow()).is_err());
    let boxed = in_a_task(into_box()).expect_err("the child failed");
    assert!(boxed.downcast::<GroupError<io::Error>>().is_ok());
    assert!(matches!(in_a_task(into_an_enum()), Err(AppError::Scope(_))));
}

#[test]
fn anyhow_into_anyhow_and_into_a_box() {
    async fn fetch() -> anyhow::Result<u32> {
        Ok(read(false).await?)
    }
    async fn into_anyhow() -> anyhow::Result<u32> {
        let value = scope(async |group| {
            let a = group.spawn(fetch());
            let b = group.spawn(async {
                let value = read(true).await?;
                anyhow::ensure!(value > 5, "too small");
                Ok(value)
            });
            Ok(a.await + b.await)
        })
        .await?;
        Ok(value)
    }
    async fn into_box() -> Result<u32, Box<dyn Error + Send + Sync>> {
        Ok(scope(async |group| Ok(group.spawn(fetch()).await)).await?)
    }
    let error = in_a_task(into_anyhow()).expect_err("both children fail");
    assert!(error.is::<GroupError<anyhow::Error>>());
    assert!(in_a_task(into_box()).is_err());
}

#[test]
fn any_error_into_anyhow_and_into_a_box() {
    async fn work(text: &str) -> Result<u32, GroupError<BoxError>> {
        scope(async |group: &TaskGroup| {
            if text.is_empty() {
                return Err("no text".into());
            }
            let parsed: u32 = text.parse()?;
            Ok(group.spawn(async { Ok(read(true).await?) }).await + parsed)
        })
        .await
    }
    async fn into_anyhow(text: &str) -> anyhow::Result<u32> {
        Ok(work(text).await?)
    }
    async fn into_box(text: &str) -> Result<u32, Box<dyn Error + Send + Sync>> {
        Ok(work(text).await?)
    }
    async fn into_another(text: &str) -> Result<u32, BoxError> {
        Ok(work(text).await?)
    }
    assert_eq!(in_a_task(into_anyhow("41")).ok(), Some(42));
    assert!(in_a_task(into_box("")).is_err());
    let nested = in_a_task(into_another("x")).expect_err("not a number");
    let inner = nested
        .downcast_ref::<GroupError<BoxError>>()
        .and_then(GroupError::first);
    assert!(inner.is_some_and(|error| error.is::<std::num::ParseIntError>()));
}

#[test]
fn a_std_box_where_nothing_is_spawned_around_it() {
    type StdBox = Box<dyn Error + Send + Sync>;
    async fn fetch() -> Result<u32, StdBox> {
        Ok(read(false).await?)
    }
    async fn into_anyhow() -> anyhow::Result<u32> {
        Ok(scope(async |group| Ok(group.spawn(fetch()).await)).await?)
    }
    async fn into_box() -> Result<u32, Box<dyn Error>> {
        Ok(scope(async |group| Ok(group.spawn(fetch()).await)).await?)
    }
    let runtime = two_workers();
    assert!(runtime.block_on(into_anyhow()).is_err());
    assert!(runtime.block_on(into_box()).is_err());
}

#[test]
fn a_string_into_anyhow_and_into_a_box() {
    async fn work() -> Result<u32, GroupError<String>> {
        scope(async |group| {
            let child = group.spawn(async { Err::<u32, _>("broken".to_owned()) });
            Ok(child.await)
        })
        .await
    }
    async fn into_anyhow() -> anyhow::Result<u32> {
        Ok(work().await?)
    }
    async fn into_box() -> Result<u32, Box<dyn Error + Send + Sync>> {
        Ok(work().await?)
    }
    let error = in_a_task(into_anyhow()).expect_err("the child failed");
    assert!(error.to_string().contains("broken"), "{error}");
    assert!(in_a_task(into_box()).is_err());
}

#[test]
fn scopes_in_scopes_with_different_errors() {
    async fn work() -> anyhow::Result<u32> {
        let value = scope(async |outer: &TaskGroup<anyhow::Error>| {
            let inner = scope(async |group| {
                outer.spawn(async { Ok(()) });
                Ok(group.spawn(app(true)).await)
            });
            let child = outer.spawn(async {
                let inner = scope(async |group| Ok(group.spawn(read(true)).await));
                Ok(inner.await?)
            });
            Ok(inner.await? + child.await)
        });
        Ok(value.await?)
    }
    assert_eq!(in_a_task(work()).ok(), Some(3));
}

// ---------------------------------------------------------------------------------------------------------------
// Places
// ---------------------------------------------------------------------------------------------------------------

trait Db: Send + Sync + 'static {
    fn load(&self, id: u32) -> impl Future<Output = Result<u32, io::Error>> + Send;
}

#[derive(Clone)]
struct Memory(u32);

impl Db for Memory {
    async fn load(&self, id: u32) -> Result<u32, io::Error> {
        let base = self.0;
        let loaded = scope(async |group| {
            let own = group.spawn(read(true)).await;
            Ok(base + id + own)
        });
        loaded.await.map_err(io::Error::other)
    }
}

/// A service whose methods borrow it, mutably too.
struct Service<D> {
    db: D,
    served: u32,
    log: Vec<String>,
}

impl<D: Db + Clone> Service<D> {
    async fn step(&mut self, by: u32) {
        tokio::task::yield_now().await;
        self.served += by;
    }

    async fn serve(&mut self, name: &str, ids: &[u32]) -> Result<u32, GroupError<io::Error>> {
        let total = scope(async |group| {
            let mut handles = Vec::new();
            for &id in ids {
                let db = self.db.clone();
                handles.push(group.spawn(async move { db.load(id).await }));
                self.step(1).await;
            }
            self.log.push(name.to_owned());
            Ok(join_all(handles).await.into_iter().sum::<u32>())
        })
        .await?;
        self.step(total).await;
        Ok(total)
    }
}

#[test]
fn a_method_with_a_mutable_self_over_a_generic_trait() {
    let (total, service) = in_a_task(async {
        let (db, log) = (Memory(10), Vec::new());
        let mut service = Service { db, served: 0, log };
        let total = service.serve("first", &[1, 2, 3]).await;
        (total, service)
    });
    assert_eq!(total.ok(), Some(39));
    assert_eq!((service.served, service.log.len()), (42, 1));
}

trait Handler: Send + Sync {
    fn handle<'a>(&'a self, input: &'a str) -> Pin<Box<dyn Future<Output = usize> + Send + 'a>>;
}

struct Lengths;

impl Handler for Lengths {
    fn handle<'a>(&'a self, input: &'a str) -> Pin<Box<dyn Future<Output = usize> + Send + 'a>> {
        Box::pin(async move {
            let length = scope(async |group: &TaskGroup| {
                let word = input.to_owned();
                Ok(group.spawn(async move { Ok(word.len()) }).await)
            });
            length.await.unwrap_or(0)
        })
    }
}

#[test]
fn trait_objects_around_and_inside() {
    let seen = in_a_task(async {
        let handler: Box<dyn Handler> = Box::new(Lengths);
        let words = ["a".to_owned(), "bc".to_owned()];
        let mut count = 0;
        let each: &mut (dyn FnMut(usize) + Send) = &mut |length| count += length;
        let names: &mut (dyn Iterator<Item = &str> + Send) = &mut words.iter().map(String::as_str);
        let done = scope(async |_: &TaskGroup| {
            for name in names {
                each(handler.handle(name).await);
            }
            Ok(())
        });
        done.await.map(|()| count).ok()
    });
    assert_eq!(seen, Some(3));
}

#[test]
fn values_borrowed_from_the_caller() {
    async fn longest(words: &[String]) -> Result<Vec<&str>, GroupError<String>> {
        scope(async |group| {
            let limit = group.spawn(async { Ok(2) }).await;
            Ok(words
                .iter()
                .map(String::as_str)
                .filter(|word| word.len() > limit)
                .collect())
        })
        .await
    }
    let found = in_a_task(async {
        let words = ["a".to_owned(), "abc".to_owned()];
        longest(&words).await.map(|found| found.len())
    });
    assert_eq!(found.ok(), Some(1));
}

#[test]
fn inside_select_timeout_and_join() {
    let (selected, joined, timed, all) = in_a_task(async {
        let name = "name".to_owned();
        let selected = tokio::select! {
            biased;
            done = scope(async |group: &TaskGroup| {
                let length = name.len();
                Ok(group.spawn(async move { Ok(length) }).await)
            }) => done.ok(),
            () = std::future::pending() => None,
        };
        let joined = tokio::join!(
            scope(async |_: &TaskGroup| Ok(name.len())),
            scope(async |_: &TaskGroup<String>| Ok(1))
        );
        let timed: Result<_, Elapsed> = timeout(
            Duration::MAX,
            scope(async |_: &TaskGroup| Ok(name.as_str().len())),
        )
        .await;
        let one = |plus: usize| {
            let name = &name;
            async move {
                let length = scope(async |group: &TaskGroup| {
                    let length = name.len();
                    Ok(group.spawn(async move { Ok(length + plus) }).await)
                });
                length.await
            }
        };
        let all = try_join_all([one(1), one(2)]).await;
        (
            selected,
            joined.0.ok(),
            timed.ok().and_then(Result::ok),
            all.ok(),
        )
    });
    assert_eq!((selected, joined, timed), (Some(4), Some(4), Some(4)));
    assert_eq!(all, Some(vec![5, 6]));
}

#[test]
fn handles_in_select_and_in_a_row() {
    let value = in_a_task(async {
        scope(async |group: &TaskGroup| {
            let mut slow = group.spawn(async { Ok(1) });
            let quick = group.spawn(async { Ok(2) });
            let raced = tokio::select! {
                value = &mut slow => value,
                value = quick => value + slow.await - 1,
            };
            let (a, b) = (group.spawn(async { Ok(3) }), group.spawn(async { Ok(4) }));
            let either = select(a, b).await;
            let (first, rest) = either.factor_first();
            Ok(raced + first + rest.await)
        })
        .await
    });
    let value = value.expect("nothing failed");
    assert!(value == 8 || value == 9, "{value}");
}

/// A helper that is generic over its body, and spawns it.
async fn with_name<T, B>(name: &'static str, body: B) -> Result<T, GroupError<io::Error>>
where
    T: Send + 'static,
    B: for<'g> ScopeBody<'g, io::Error, T, Fut: Send> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "what is tested is a plain task")]
    let task = tokio::spawn(async move {
        let scope = Scope::new().name(name);
        scope.run(async move |group| body.call(group).await).await
    });
    task.await.expect("no panic")
}

/// A helper that lends a spawner, and asks for nothing but `Send`.
async fn with_spawner<F, Fut>(body: F) -> Result<u32, GroupError<String>>
where
    F: FnOnce(Spawner<String>) -> Fut + Send,
    Fut: Future<Output = Result<u32, String>> + Send,
{
    scope(async |group| body(group.spawner()).await).await
}

async fn named_body(group: &TaskGroup<io::Error>) -> Result<u32, io::Error> {
    Ok(group.spawn(read(true)).await)
}

#[test]
fn generic_callers_spawn_a_body() {
    let (closure, item, spawner, failed) = in_a_task(async {
        let closure = with_name("closure", async |group| Ok(group.spawn(read(true)).await)).await;
        let item = with_name("item", named_body).await;
        let spawner = with_spawner(|spawner| async move {
            let outcome = spawner.spawn(async { Ok(5) }).await;
            outcome.completed().ok_or_else(|| "none".to_owned())
        });
        let failed = with_name("failed", async |group| Ok(group.spawn(read(false)).await)).await;
        (closure.ok(), item.ok(), spawner.await.ok(), failed)
    });
    assert_eq!((closure, item, spawner), (Some(1), Some(1), Some(5)));
    let error = failed.expect_err("the child failed");
    assert_eq!(error.group(), Some("failed"));
}

/// Recursion goes through a function that says what it returns.
fn count(depth: u32) -> Pin<Box<dyn Future<Output = Result<u32, GroupError<String>>> + Send>> {
    Box::pin(async move {
        if depth == 0 {
            return Ok(1);
        }
        scope(async |group| {
            let below = async move |depth| count(depth).await.map_err(|error| error.to_string());
            let left = group.spawn(below(depth - 1));
            let right = group.spawn(below(depth - 1));
            Ok(left.await + right.await)
        })
        .await
    })
}

#[test]
fn recursion_through_a_boxed_function() {
    assert_eq!(in_a_task(count(6)).ok(), Some(64));
}

#[test]
fn a_spawner_in_a_struct_and_in_a_child() {
    struct Crawler {
        spawner: Spawner,
    }
    impl Crawler {
        async fn visit(&self, page: u32) -> u32 {
            let found = self.spawner.spawn(async move { Ok(page + 1) });
            match found.await {
                Outcome::Completed(next) => next,
                _ => page,
            }
        }
    }
    let last = in_a_task(async {
        scope(async |group: &TaskGroup| {
            let crawler = Crawler {
                spawner: group.spawner(),
            };
            let child = group.spawn(async move { Ok(crawler.visit(1).await) });
            Ok(child.await)
        })
        .await
    });
    assert_eq!(last.ok(), Some(2));
}

#[test]
fn a_child_may_return_nothing_a_result_or_never() {
    let value = in_a_task(async {
        scope(async |group: &TaskGroup| {
            group.spawn(async {}).await;
            group.spawn_background(async {
                loop {
                    tokio::task::yield_now().await;
                }
            });
            async fn for_ever() -> ! {
                std::future::pending().await
            }
            group.spawn_background(for_ever());
            group.spawn_background(async { for_ever().await });
            let wrapped = group.spawn(async { Ok(1) }).await;
            let converted = group.spawn(async { Ok(read(true).await?) }).await;
            Ok(wrapped + converted)
        })
        .await
    });
    assert_eq!(value.ok(), Some(2));
}
