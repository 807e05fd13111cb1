//! From the bytes of a page to its links and anchors.

use std::collections::{BTreeMap, HashMap, HashSet};

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{HtmlString, StartTag, Token, Tokenizer};
use percent_encoding::percent_decode_str;
use url::Url;

/// What a page says about itself and others.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The absolute URLs that it links to, with fragment, and how often.
    pub(crate) links: BTreeMap<Url, usize>,
    /// Links that are no URL at all.
    pub(crate) malformed: Vec<String>,
    /// What a fragment can point to.
    pub(crate) anchors: Anchors,
    /// A `<meta http-equiv="refresh">`: the page only sends the reader on.
    pub(crate) moved_to: Option<Url>,
}

/// The names in a page that a fragment can point to.
#[derive(Debug, Default)]
pub(crate) struct Anchors(HashSet<Box<str>>);

impl Anchors {
    /// Whether `url#fragment` leads somewhere. `fragment` is percent-encoded, as in a [`Url`].
    pub(crate) fn contains(&self, fragment: &str) -> bool {
        // `#top` is the top of every page, and so is an empty fragment.
        if fragment.is_empty() || fragment.eq_ignore_ascii_case("top") {
            return true;
        }
        let decoded = percent_decode_str(fragment).decode_utf8_lossy();
        self.0.contains(fragment)
            || self.0.contains(&*decoded)
            // Pages of source code understand `#10-20`: that range of lines.
            || fragment.split_once('-').is_some_and(|(from, to)| {
                [from, to].iter().all(|line| self.0.contains(*line) && line.parse::<u32>().is_ok())
            })
    }
}

/// Reads a page that came from `url`.
pub(crate) fn parse(url: &Url, html: &[u8]) -> Page {
    let mut page = Page::default();
    let mut base = None;
    let mut refresh = None;
    // Counted as written first: a page says the same thing many times, and resolving is not free.
    let mut written: HashMap<HtmlString, usize> = HashMap::new();

    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true); // no tags inside of <script>, <style>, <title>, …
    for Ok(token) in Tokenizer::new_with_emitter(html, emitter) {
        let Token::StartTag(mut tag) = token else {
            continue;
        };
        if let Some(link) = link(&mut tag) {
            *written.entry(link).or_default() += 1;
        }
        match &**tag.name {
            b"base" if base.is_none() => base = attribute(&tag, "href"),
            b"meta" if refresh.is_none() => refresh = refresh_target(&tag),
            b"a" => page
                .anchors
                .0
                .extend(attribute(&tag, "name").map(Box::from)),
            _ => {}
        }
        page.anchors.0.extend(attribute(&tag, "id").map(Box::from));
    }

    let base = base
        .and_then(|base| url.join(&base).ok())
        .unwrap_or_else(|| url.clone());
    for (link, count) in written {
        match resolve(&base, &String::from_utf8_lossy(&link)) {
            Ok(link) => *page.links.entry(link).or_default() += count,
            Err(malformed) => page.malformed.push(malformed),
        }
    }
    if let Some(Ok(target)) = refresh.map(|target| resolve(&base, &target)) {
        page.links.entry(target.clone()).or_insert(1);
        page.moved_to = Some(target);
    }
    page
}

/// Makes a link absolute, and equal to all others that mean the same resource.
pub(crate) fn resolve(base: &Url, link: &str) -> Result<Url, String> {
    let mut url = base
        .join(link)
        .map_err(|error| format!("`{link}`: {error}"))?;
    if url.path().contains('%') {
        let path = unescape_unreserved(url.path());
        url.set_path(&path);
    }
    // `#anchor:~:text=…` is for the browser alone.
    if let Some((fragment, _)) = url
        .fragment()
        .and_then(|fragment| fragment.split_once(":~:"))
    {
        let fragment = fragment.to_owned();
        url.set_fragment(Some(&fragment));
    }
    Ok(url)
}

/// `%7e` and `~` are the same by RFC 3986, 6.2.2: escapes of unreserved characters are undone, the
/// others written in upper case.
fn unescape_unreserved(path: &str) -> String {
    let mut parts = path.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let escape = part
            .get(..2)
            .and_then(|hex| Some((hex, u8::from_str_radix(hex, 16).ok()?)));
        match escape {
            Some((_, byte)) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                out.push(char::from(byte));
                out.push_str(&part[2..]);
            }
            Some((hex, _)) => {
                out.push('%');
                out.push_str(&hex.to_ascii_uppercase());
                out.push_str(&part[2..]);
            }
            None => {
                out.push('%');
                out.push_str(part);
            }
        }
    }
    out
}

/// What a tag links to.
fn link(tag: &mut StartTag<()>) -> Option<HtmlString> {
    let name: &[u8] = match &**tag.name {
        b"a" | b"area" | b"link" => b"href",
        b"audio" | b"embed" | b"iframe" | b"img" | b"script" | b"source" | b"track" | b"video" => {
            b"src"
        }
        _ => return None,
    };
    tag.attributes.remove(name).map(|link| link.value)
}

fn attribute(tag: &StartTag<()>, name: &str) -> Option<String> {
    let value = tag.attributes.get(name.as_bytes())?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// The `there` of `<meta http-equiv="refresh" content="0; URL=there">`.
fn refresh_target(tag: &StartTag<()>) -> Option<String> {
    if !attribute(tag, "http-equiv")?.eq_ignore_ascii_case("refresh") {
        return None;
    }
    let content = attribute(tag, "content")?;
    let (_, target) = content.split_once(';')?;
    let (url, target) = target.split_once('=')?;
    let target = target.trim().trim_matches(['"', '\'']);
    url.trim()
        .eq_ignore_ascii_case("url")
        .then(|| target.to_owned())
}

#[cfg(test)]
mod tests;
