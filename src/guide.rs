//! The pages of `docs/`, as part of the documentation, with their programs compiled and run.
//!
//! Built for rustdoc and for doc tests only. A guard in `tests/house` sees that no page is left out.

/// Where the links of the pages lead from here. In a page they are written `[text][page.md]`, with `[page.md]: page.md` at its
/// end, which is right in the repository. The first definition of a label counts, so that these come before each page; but not in
/// doc tests, whose lines are then those of the page.
#[cfg(not(doctest))]
macro_rules! links {
    () => {
        "
[contract.md]: crate::guide::contract
[cancellation.md]: crate::guide::cancellation
[cookbook.md]: crate::guide::cookbook
[choosing.md]: crate::guide::choosing
[errors.md]: crate::guide::errors
[testing.md]: crate::guide::testing
[limits.md]: crate::guide::limits
[migrating.md]: crate::guide::migrating
[retry.md]: crate::guide::retry
[service.md]: crate::guide::service
[from-asyncio.md]: crate::guide::from_asyncio
[comparison.md]: crate::guide::comparison
[performance.md]: crate::guide::performance
[glossary.md]: crate::guide::glossary
[ARCHITECTURE.md]: crate::guide::architecture
[CONTRIBUTING.md]: crate::guide::contributing
[verification.md]: crate::guide::verification
[decisions/0003-a-scope-is-adopted-when-it-is-dropped.md]: https://github.com/ringfence-rs/ringfence/blob/main/docs/decisions/0003-a-scope-is-adopted-when-it-is-dropped.md
[decisions/0006-a-queue-is-one-lock.md]: https://github.com/ringfence-rs/ringfence/blob/main/docs/decisions/0006-a-queue-is-one-lock.md
[decisions/0007-what-it-costs-to-build.md]: https://github.com/ringfence-rs/ringfence/blob/main/docs/decisions/0007-what-it-costs-to-build.md
[retry.svg]: https://raw.githubusercontent.com/ringfence-rs/ringfence/main/docs/retry.svg
[service.svg]: https://raw.githubusercontent.com/ringfence-rs/ringfence/main/docs/service.svg
[performance/groups.svg]: https://raw.githubusercontent.com/ringfence-rs/ringfence/main/docs/performance/groups.svg
[performance/children.svg]: https://raw.githubusercontent.com/ringfence-rs/ringfence/main/docs/performance/children.svg
[performance/inside.svg]: https://raw.githubusercontent.com/ringfence-rs/ringfence/main/docs/performance/inside.svg
[performance/joining.svg]: https://raw.githubusercontent.com/ringfence-rs/ringfence/main/docs/performance/joining.svg
[performance/fan-out.svg]: https://raw.githubusercontent.com/ringfence-rs/ringfence/main/docs/performance/fan-out.svg
[performance/items.svg]: https://raw.githubusercontent.com/ringfence-rs/ringfence/main/docs/performance/items.svg
[performance/queues.svg]: https://raw.githubusercontent.com/ringfence-rs/ringfence/main/docs/performance/queues.svg
[performance/producers.svg]: https://raw.githubusercontent.com/ringfence-rs/ringfence/main/docs/performance/producers.svg
[performance/retry.svg]: https://raw.githubusercontent.com/ringfence-rs/ringfence/main/docs/performance/retry.svg
[performance/seen.svg]: https://raw.githubusercontent.com/ringfence-rs/ringfence/main/docs/performance/seen.svg

"
    };
}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/contract.md")]
pub mod contract {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/cancellation.md")]
pub mod cancellation {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/cookbook.md")]
pub mod cookbook {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/choosing.md")]
pub mod choosing {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/errors.md")]
pub mod errors {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/limits.md")]
pub mod limits {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/migrating.md")]
pub mod migrating {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/retry.md")]
pub mod retry {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/service.md")]
pub mod service {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/from-asyncio.md")]
pub mod from_asyncio {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/performance.md")]
pub mod performance {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/glossary.md")]
pub mod glossary {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/ARCHITECTURE.md")]
pub mod architecture {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/CONTRIBUTING.md")]
pub mod contributing {}

#[cfg_attr(not(doctest), doc = links!())]
#[doc = include_str!("../docs/verification.md")]
pub mod verification {}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
pub struct Readme;
