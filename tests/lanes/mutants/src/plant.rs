//! Where mutants can be planted in a file, and the file with all of them in it.
//!
//! Edits of the text, not of the tree: what is not touched stays as it was, comments and macros too, and no line moves, so that the
//! compiler's complaints and the reports name the lines of the original.

use std::collections::BTreeSet;
use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, Meta, ReturnType, Stmt, Type, UnOp};

use crate::kinds;

/// One mutant.
#[derive(Clone, Debug)]
pub struct Mutant {
    pub file: String,
    pub line: usize,
    /// The line of the original, which with `what` tells it from others when numbers have moved.
    pub text: String,
    pub what: String,
}

/// What stands instead: text, and parts of the original with their own edits inside.
#[derive(Debug)]
enum Piece {
    Text(&'static str),

    Part(Range<usize>),
}

#[derive(Debug)]
struct Edit {
    range: Range<usize>,
    /// The first is the outermost.
    layers: Vec<Layer>,
}

/// A mutant around the layer below; at the bottom is the original.
#[derive(Debug)]
struct Layer {
    id: usize,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    /// `(if on { pieces } else { inner })`
    Instead(Vec<Piece>),
    /// `((inner) != on)`
    Flip,
    /// `if !on { inner }`
    Unless,
    /// `(on || (inner))`
    Or,
    /// `(!on && (inner))`
    AndNot,
    /// `if on { return value; }`, in a place of no width
    Return(String),
    /// ` if !on `, in a place of no width
    Guard,
    /// `a && b` as `a || b` and the other way round, without a copy of either: `!(!a && !b)`
    DeMorgan(Range<usize>, &'static str, Range<usize>),
}

/// What was left out, and how often.
#[derive(Default, Debug)]
pub struct Skipped {
    pub constants: usize,
    pub macros: usize,
    pub debug: usize,
}

pub struct File {
    text: String,
    edits: Vec<Edit>,
}

struct Planter<'a> {
    path: &'a str,
    text: &'a str,
    lines: Vec<&'a str>,
    mutants: &'a mut Vec<Mutant>,
    skipped: &'a mut Skipped,
    absent: &'a mut BTreeSet<String>,
    edits: Vec<Edit>,
    function: Vec<String>,
}

/// Finds all mutants of one file. Files of modules that this build does not have are added to `absent`.
pub fn find(
    path: &str,
    text: &str,
    mutants: &mut Vec<Mutant>,
    skipped: &mut Skipped,
    absent: &mut BTreeSet<String>,
) -> File {
    let tree = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut planter = Planter {
        path,
        text,
        lines: text.lines().collect(),
        mutants,
        skipped,
        absent,
        edits: Vec::new(),
        function: Vec::new(),
    };
    planter.visit_file(&tree);
    let mut edits = planter.edits;
    edits.sort_by_key(|edit| (edit.range.start, std::cmp::Reverse(edit.range.end)));
    File {
        text: text.to_owned(),
        edits,
    }
}

impl File {
    /// One that nothing is planted in.
    pub fn plain(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            edits: Vec::new(),
        }
    }

    /// The text with all mutants in it but those excluded. `/*<7*/ … /*7>*/` is around each.
    pub fn planted(&self, excluded: &BTreeSet<usize>) -> String {
        let mut out = String::with_capacity(self.text.len() * 4);
        self.render(0..self.text.len(), 0, excluded, &mut out);
        out
    }

    fn render(
        &self,
        range: Range<usize>,
        from: usize,
        excluded: &BTreeSet<usize>,
        out: &mut String,
    ) {
        let mut at = range.start;
        for (index, edit) in self.edits.iter().enumerate().skip(from) {
            if edit.range.start > range.end {
                break;
            }
            if edit.range.start < at || edit.range.end > range.end {
                continue;
            }
            out.push_str(&self.text[at..edit.range.start]);
            let layers: Vec<_> = edit
                .layers
                .iter()
                .filter(|layer| !excluded.contains(&layer.id))
                .collect();
            self.layer(edit, index, &layers, excluded, out);
            at = edit.range.end;
        }
        out.push_str(&self.text[at..range.end]);
    }

    fn layer(
        &self,
        edit: &Edit,
        index: usize,
        layers: &[&Layer],
        excluded: &BTreeSet<usize>,
        out: &mut String,
    ) {
        let Some((first, rest)) = layers.split_first() else {
            self.render(edit.range.clone(), index + 1, excluded, out);
            return;
        };
        let id = first.id;
        let on = format!("crate::mutants::on({id})");
        out.push_str(&format!("/*<{id}*/"));
        let inner = |out: &mut String| self.layer(edit, index, rest, excluded, out);
        match &first.shape {
            Shape::Instead(pieces) => {
                out.push_str(&format!("(if {on} {{ "));
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => out.push_str(text),
                        Piece::Part(part) => self.render(part.clone(), index + 1, excluded, out),
                    }
                }
                out.push_str(" } else { ");
                inner(out);
                out.push_str(" })");
            }
            Shape::Flip => {
                out.push_str("((");
                inner(out);
                out.push_str(&format!(") != {on})"));
            }
            Shape::Unless => {
                out.push_str(&format!("if !{on} {{ "));
                inner(out);
                out.push_str(" }");
            }
            Shape::Or => {
                out.push_str(&format!("({on} || ("));
                inner(out);
                out.push_str("))");
            }
            Shape::AndNot => {
                out.push_str(&format!("(!{on} && ("));
                inner(out);
                out.push_str("))");
            }
            Shape::Return(value) => {
                out.push_str(&format!(" if {on} {{ return {value}; }} "));
                inner(out);
            }
            Shape::Guard => {
                out.push_str(&format!(" if !{on} "));
                inner(out);
            }
            Shape::DeMorgan(left, operator, right) => {
                out.push_str("((((");
                self.render(left.clone(), index + 1, excluded, out);
                out.push_str(&format!(") != {on}) {operator} (("));
                self.render(right.clone(), index + 1, excluded, out);
                out.push_str(&format!(") != {on})) != {on})"));
            }
        }
        out.push_str(&format!("/*{id}>*/"));
    }
}

impl Planter<'_> {
    fn mutant(&mut self, at: usize, what: String) -> usize {
        let line = self.text[..at].matches('\n').count() + 1;
        let within = match self.function.join("::") {
            name if name.is_empty() => name,
            name => format!(", in {name}"),
        };
        self.mutants.push(Mutant {
            file: self.path.to_owned(),
            line,
            text: self.lines[line - 1].trim().to_owned(),
            what: format!("{what}{within}"),
        });
        self.mutants.len() - 1
    }

    fn plant(&mut self, range: Range<usize>, shapes: Vec<(String, Shape)>) {
        if shapes.is_empty() {
            return;
        }
        let layers = shapes
            .into_iter()
            .map(|(what, shape)| Layer {
                id: self.mutant(range.start, what),
                shape,
            })
            .collect();
        self.edits.push(Edit { range, layers });
    }

    fn slice(&self, what: &impl Spanned) -> &str {
        &self.text[what.span().byte_range()]
    }

    /// Whether the item is there in the build that is tested: unix, all features, std's atomics.
    fn is_there(&self, attributes: &[syn::Attribute]) -> bool {
        attributes.iter().all(|attribute| {
            !attribute.path().is_ident("cfg")
                || attribute
                    .parse_args::<Meta>()
                    .is_ok_and(|meta| kinds::holds(&meta))
        })
    }

    fn body(&mut self, signature: &syn::Signature, block: &syn::Block) {
        if block.stmts.is_empty() {
            return;
        }
        let at = block.brace_token.span.open().byte_range().end;
        let inside = self.text[at..block.brace_token.span.close().byte_range().start]
            .trim()
            .to_owned();
        let values = match &signature.output {
            ReturnType::Default => vec!["()".to_owned()],
            ReturnType::Type(_, kind) => kinds::defaults(kind),
        };
        let shapes = values
            .into_iter()
            .filter(|value| *value != inside)
            .map(|value| (format!("the body is `{value}`"), Shape::Return(value)))
            .collect();
        self.plant(at..at, shapes);
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        if signature.constness.is_some() {
            self.skipped.constants += 1;
            return;
        }
        self.function.push(signature.ident.to_string());
        self.body(signature, block);
        self.visit_block(block);
        self.function.pop();
    }

    fn binary(&mut self, expr: &syn::ExprBinary) {
        let range = expr.span().byte_range();
        let (left, right) = (
            expr.left.span().byte_range(),
            expr.right.span().byte_range(),
        );
        let from = self.slice(&expr.op).to_owned();
        match expr.op {
            BinOp::And(_) => {
                return self.plant(
                    range,
                    vec![("&& is ||".to_owned(), Shape::DeMorgan(left, "&&", right))],
                );
            }
            BinOp::Or(_) => {
                return self.plant(
                    range,
                    vec![("|| is &&".to_owned(), Shape::DeMorgan(left, "||", right))],
                );
            }
            BinOp::Eq(_) => return self.plant(range, vec![("== is !=".to_owned(), Shape::Flip)]),
            BinOp::Ne(_) => return self.plant(range, vec![("!= is ==".to_owned(), Shape::Flip)]),
            _ => {}
        }
        let others: &[&'static str] = match expr.op {
            BinOp::Lt(_) => &["<=", ">"],
            BinOp::Le(_) => &["<", ">"],
            BinOp::Gt(_) => &[">=", "<"],
            BinOp::Ge(_) => &[">", "<"],
            BinOp::Add(_) => &["-", "*"],
            BinOp::Sub(_) => &["+", "/"],
            BinOp::Mul(_) => &["+", "/"],
            BinOp::Div(_) => &["*", "%"],
            BinOp::Rem(_) => &["/", "+"],
            BinOp::BitAnd(_) => &["|"],
            BinOp::BitOr(_) => &["&"],
            BinOp::BitXor(_) => &["|", "&"],
            BinOp::Shl(_) => &[">>"],
            BinOp::Shr(_) => &["<<"],
            BinOp::AddAssign(_) => &["-=", "*="],
            BinOp::SubAssign(_) => &["+="],
            BinOp::MulAssign(_) => &["+=", "/="],
            BinOp::DivAssign(_) => &["*="],
            BinOp::BitAndAssign(_) => &["|="],
            BinOp::BitOrAssign(_) => &["&="],
            BinOp::BitXorAssign(_) => &["|=", "&="],
            BinOp::ShlAssign(_) => &[">>="],
            BinOp::ShrAssign(_) => &["<<="],
            _ => &[],
        };
        let shapes = others
            .iter()
            .map(|to| {
                let pieces = vec![
                    Piece::Part(left.clone()),
                    Piece::Text(" "),
                    Piece::Text(to),
                    Piece::Text(" "),
                    Piece::Part(right.clone()),
                ];
                (format!("{from} is {to}"), Shape::Instead(pieces))
            })
            .collect();
        self.plant(range, shapes);
    }
}

impl<'ast> Visit<'ast> for Planter<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Trait(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if self.is_there(attributes) {
            visit::visit_item(self, item);
        } else if let syn::Item::Mod(module) = item
            && module.content.is_none()
        {
            let folder = match self.path {
                "src/lib.rs" => "src",
                path => path.strip_suffix(".rs").unwrap_or(path),
            };
            self.absent.insert(format!("{folder}/{}.rs", module.ident));
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let Some((_, path, _)) = &item.trait_
            && path
                .segments
                .last()
                .is_some_and(|last| last.ident == "Debug")
        {
            self.skipped.debug += 1;
            return;
        }
        let name = self
            .slice(&item.self_ty)
            .split('<')
            .next()
            .unwrap_or_default()
            .to_owned();
        self.function.push(name);
        visit::visit_item_impl(self, item);
        self.function.pop();
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if self.is_there(&item.attrs) {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default
            && self.is_there(&item.attrs)
        {
            self.function(&item.sig, block);
        }
    }

    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {
        self.skipped.constants += 1;
    }

    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {
        self.skipped.constants += 1;
    }

    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {
        self.skipped.constants += 1;
    }

    fn visit_macro(&mut self, _: &'ast syn::Macro) {
        self.skipped.macros += 1;
    }

    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_expr_repeat(&mut self, _: &'ast syn::ExprRepeat) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_type(&mut self, _: &'ast Type) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if self.is_there(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_expr_block(&mut self, block: &'ast syn::ExprBlock) {
        if self.is_there(&block.attrs) {
            visit::visit_expr_block(self, block);
        }
    }

    fn visit_expr_binary(&mut self, expr: &'ast syn::ExprBinary) {
        self.binary(expr);
        visit::visit_expr_binary(self, expr);
    }

    fn visit_expr_unary(&mut self, expr: &'ast syn::ExprUnary) {
        let from = match expr.op {
            UnOp::Not(_) => "!",
            UnOp::Neg(_) => "-",
            _ => return visit::visit_expr_unary(self, expr),
        };
        let pieces = vec![Piece::Part(expr.expr.span().byte_range())];
        self.plant(
            expr.span().byte_range(),
            vec![(format!("no {from}"), Shape::Instead(pieces))],
        );
        visit::visit_expr_unary(self, expr);
    }

    fn visit_stmt(&mut self, stmt: &'ast Stmt) {
        if let Stmt::Expr(expr, Some(_)) = stmt
            && matches!(expr, Expr::Call(_) | Expr::MethodCall(_) | Expr::Await(_))
        {
            let call = self
                .slice(expr)
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned();
            self.plant(
                stmt.span().byte_range(),
                vec![(format!("no `{call}`"), Shape::Unless)],
            );
        }
        visit::visit_stmt(self, stmt);
    }

    fn visit_expr_match(&mut self, expr: &'ast syn::ExprMatch) {
        let rest = expr
            .arms
            .last()
            .is_some_and(|arm| matches!(arm.pat, syn::Pat::Wild(_)));
        for (index, arm) in expr.arms.iter().enumerate() {
            if let Some((_, guard)) = &arm.guard {
                self.plant(
                    guard.span().byte_range(),
                    vec![
                        ("the guard is true".to_owned(), Shape::Or),
                        ("the guard is false".to_owned(), Shape::AndNot),
                    ],
                );
            } else if rest && index + 1 < expr.arms.len() {
                let at = arm.pat.span().byte_range().end;
                let pattern = self.slice(&arm.pat).to_owned();
                self.plant(at..at, vec![(format!("no arm `{pattern}`"), Shape::Guard)]);
            }
        }
        visit::visit_expr_match(self, expr);
    }
}
