//! What can be told from types and from `cfg`s.

use syn::{Meta, Type};

/// Whether a `cfg` holds in the build that is tested: unix, all features, std's atomics.
pub fn holds(meta: &Meta) -> bool {
    let inner = |list: &syn::MetaList| -> Vec<bool> {
        list.parse_args_with(syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated)
            .map(|list| list.iter().map(holds).collect())
            .unwrap_or_default()
    };
    match meta {
        Meta::Path(path) => path.is_ident("unix") || path.is_ident("debug_assertions"),
        Meta::NameValue(pair) => {
            pair.path.is_ident("feature") || pair.path.is_ident("target_has_atomic")
        }
        Meta::List(list) if list.path.is_ident("not") => !inner(list).iter().any(|holds| *holds),
        Meta::List(list) if list.path.is_ident("any") => inner(list).iter().any(|holds| *holds),
        Meta::List(list) => inner(list).iter().all(|holds| *holds),
    }
}

/// What a body may be replaced by. What does not compile is found by the compiler.
pub fn defaults(kind: &Type) -> Vec<String> {
    let first = |kind: &Type| defaults(kind).into_iter().next();
    match kind {
        Type::Tuple(tuple) => {
            let parts: Option<Vec<_>> = tuple.elems.iter().map(first).collect();
            match parts {
                Some(parts) if parts.is_empty() => vec!["()".to_owned()],
                Some(parts) => vec![format!("({},)", parts.join(", "))],
                None => Vec::new(),
            }
        }
        Type::Reference(to) if to.mutability.is_none() => match &*to.elem {
            Type::Path(path) if path.path.is_ident("str") => {
                vec!["\"\"".to_owned(), "\"xyzzy\"".to_owned()]
            }
            Type::Slice(_) => vec!["&[]".to_owned()],
            _ => Vec::new(),
        },
        Type::Path(path) => {
            let Some(last) = path.path.segments.last() else {
                return Vec::new();
            };
            let arguments: Vec<&Type> = match &last.arguments {
                syn::PathArguments::AngleBracketed(list) => list
                    .args
                    .iter()
                    .filter_map(|argument| match argument {
                        syn::GenericArgument::Type(kind) => Some(kind),
                        _ => None,
                    })
                    .collect(),
                _ => Vec::new(),
            };
            let within = |name: &str| -> Vec<String> {
                arguments
                    .first()
                    .map(|kind| defaults(kind))
                    .unwrap_or_default()
                    .into_iter()
                    .map(|value| format!("{name}({value})"))
                    .collect()
            };
            match last.ident.to_string().as_str() {
                "bool" => vec!["true".to_owned(), "false".to_owned()],
                "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i32" | "i64" | "isize" => {
                    vec!["0".to_owned(), "1".to_owned()]
                }
                "f32" | "f64" => vec!["0.0".to_owned(), "1.0".to_owned()],
                "String" => vec![
                    "String::new()".to_owned(),
                    "String::from(\"xyzzy\")".to_owned(),
                ],
                "Option" => {
                    let mut all = vec!["None".to_owned()];
                    all.extend(within("Some"));
                    all
                }
                "Result" if arguments.is_empty() => vec!["Ok(())".to_owned()],
                "Result" => within("Ok"),
                "Poll" => within("std::task::Poll::Ready"),
                "Duration" => vec![
                    "std::time::Duration::ZERO".to_owned(),
                    "std::time::Duration::from_secs(1)".to_owned(),
                ],
                _ => vec!["Default::default()".to_owned()],
            }
        }
        _ => Vec::new(),
    }
}
