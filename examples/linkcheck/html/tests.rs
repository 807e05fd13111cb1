use url::Url;

use super::{Page, parse, resolve};

fn base() -> Url {
    Url::parse("http://site/std/vec/index.html?q=1#here").expect("a URL")
}

fn page(html: &str) -> Page {
    parse(&base(), html.as_bytes())
}

fn links(html: &str) -> Vec<(String, usize)> {
    page(html)
        .links
        .into_iter()
        .map(|(url, count)| (url.to_string(), count))
        .collect()
}

fn resolved(link: &str) -> String {
    resolve(&base(), link).expect("a URL").to_string()
}

#[test]
fn links_of_all_kinds_are_found_and_counted() {
    let html = "<link href=a.css><script src='b.js'></script><img src=\"c.png\">\
                <a href=d.html>1</a><A HREF='./d.html'>2</A><a name=no-link></a>";
    let found = links(html);
    let expected = [("a.css", 1), ("b.js", 1), ("c.png", 1), ("d.html", 2)];
    let expected = expected.map(|(name, count)| (format!("http://site/std/vec/{name}"), count));
    assert_eq!(found, expected);
}

#[test]
fn scripts_styles_titles_and_comments_have_no_links() {
    let html = "<script>'<a href=1>'</script><style><a href=2></style><title><a href=3></title>\
                <!-- <a href=4> -->&lt;a href=5&gt;<textarea><a href=6></textarea>";
    assert_eq!(links(html), []);
}

#[test]
fn the_same_link_ten_thousand_times_is_one_entry() {
    assert_eq!(
        links(&"<a href='x.html'>x</a>".repeat(10_000)),
        [("http://site/std/vec/x.html".to_owned(), 10_000)]
    );
}

#[test]
fn entities_in_links_are_decoded() {
    assert_eq!(
        links("<a href='x?a=1&amp;b=2'>"),
        [("http://site/std/vec/x?a=1&b=2".to_owned(), 1)]
    );
}

#[test]
fn a_base_tag_moves_relative_links() {
    assert_eq!(
        links("<base href='/book/'><a href=x>"),
        [("http://site/book/x".to_owned(), 1)]
    );
}

#[test]
fn links_resolve_as_in_a_browser() {
    assert_eq!(resolved("../string/"), "http://site/std/string/");
    assert_eq!(resolved("../../../../x"), "http://site/x");
    assert_eq!(
        resolved("?search=a b"),
        "http://site/std/vec/index.html?search=a%20b"
    );
    assert_eq!(
        resolved("#there"),
        "http://site/std/vec/index.html?q=1#there"
    );
    assert_eq!(resolved(""), "http://site/std/vec/index.html?q=1");
    assert_eq!(resolved("//other/x"), "http://other/x");
    assert_eq!(resolved("mailto:a@b"), "mailto:a@b");
}

#[test]
fn spellings_of_one_url_become_one() {
    for link in ["a b~", "a%20b%7e", "a%20b%7E", "./a b~", "%61%20b~"] {
        assert_eq!(resolved(link), "http://site/std/vec/a%20b~", "{link}");
    }
    // An escaped slash is not a slash, and a lone % stays what it is.
    assert_eq!(resolved("a%2fb"), "http://site/std/vec/a%2Fb");
    assert_eq!(resolved("100%"), "http://site/std/vec/100%");
}

#[test]
fn what_is_no_url_is_kept_as_written() {
    let page = page("<a href='http://[broken'>");
    assert!(page.links.is_empty());
    assert!(
        page.malformed[0].starts_with("`http://[broken`: "),
        "{:?}",
        page.malformed
    );
}

#[test]
fn anchors_are_ids_and_names() {
    let anchors = page("<p id=one><a name=two><h1 id='dr&uuml;ben'><a id=10><a id=20>").anchors;
    for fragment in ["", "top", "one", "two", "dr%C3%BCben", "10", "10-20"] {
        assert!(anchors.contains(fragment), "{fragment}");
    }
    for fragment in ["One", "three", "10-30", "one-two"] {
        assert!(!anchors.contains(fragment), "{fragment}");
    }
}

#[test]
fn text_fragments_are_not_anchors() {
    assert_eq!(resolved("x#y:~:text=z"), "http://site/std/vec/x#y");
}

#[test]
fn a_refresh_moves_the_page() {
    let page = page("<META http-equiv=Refresh content=\"0; url='../x.html'\">");
    assert_eq!(
        page.moved_to.map(String::from).as_deref(),
        Some("http://site/std/x.html")
    );
    assert_eq!(page.links.len(), 1);
}

#[test]
fn no_bytes_are_too_strange() {
    assert!(parse(&base(), b"").links.is_empty());
    assert!(
        parse(&base(), b"\xff\xfe<a href=\xff><<<a a a=<")
            .malformed
            .is_empty()
    );
}
