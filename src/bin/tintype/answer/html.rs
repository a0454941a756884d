//! The answer as a page of thumbnails: one file that needs nothing else, neither network nor the photos themselves.

use std::fmt::Write;

use rayon::prelude::*;
use tintype::{Engine, Group, Hit, Record};

use super::thumbnail::thumbnail;
use super::{Answer, base64, file_url, short};

/// Pixels of a thumbnail: twice what the page shows, for sharp screens.
const WIDTH: u32 = 1200;
const HEIGHT: u32 = 480;

/// So many groups of near duplicates are shown, and so many photos of each: some hundred megabytes of thumbnails at most.
const GROUPS: usize = 200;
const PER_GROUP: usize = 12;

/// The page. Thumbnails are made on all cores; a photo that cannot be read any more is a card without a picture.
pub(super) fn page(answer: &Answer, engine: &Engine) -> String {
    let numbered: Vec<(usize, &Hit)> = answer.hits.iter().enumerate().collect();
    let cards: Vec<String> = numbered
        .par_iter()
        .map(|(at, hit)| card(*at, &hit.record, answer.scored.then_some(hit.score), engine))
        .collect();
    let title = match answer.title.as_str() {
        "" => "Newest photos",
        title => title,
    };
    let (title, model) = (escaped(title), escaped(&answer.model));
    let photos = if cards.len() == 1 { "1 photo".to_owned() } else { format!("{} photos", cards.len()) };
    let by = if answer.scored { format!(" · found by {model}") } else { String::new() };
    let cards = if cards.is_empty() { "<p class=\"none\">Nothing fits.</p>".to_owned() } else { cards.concat() };
    PAGE.replace("{title}", &title).replace("{count}", &(photos + &by)).replace("{cards}", &cards)
}

/// Groups of photos that are nearly the same, the one to keep first. The largest groups and the likest photos of each: a page of
/// all of a large library would be larger than a browser can show.
pub(super) fn groups(groups: &[Group], engine: &Engine) -> String {
    let show = |group: &Group| {
        let others = group.others.iter().take(PER_GROUP - 1).enumerate();
        let others = others.map(|(at, (record, score))| card(at + 1, record, Some(*score), engine));
        let cards: Vec<String> = std::iter::once(card(0, &group.keep, None, engine)).chain(others).collect();
        let more = (group.others.len() + 1).saturating_sub(PER_GROUP);
        let more = if more > 0 { format!(", {more} of them not shown") } else { String::new() };
        format!("<h2>{} photos{more}</h2>{}", group.others.len() + 1, cards.concat())
    };
    let shown: Vec<String> = groups[..groups.len().min(GROUPS)].par_iter().map(show).collect();
    let first =
        if groups.len() > GROUPS { format!(", of which the {GROUPS} largest are shown") } else { String::new() };
    let count =
        format!("{} groups{first}; the first photo of each has the most pixels. Nothing was deleted.", groups.len());
    let cards = if shown.is_empty() {
        "<p class=\"none\">No two photos are that much alike.</p>".to_owned()
    } else {
        shown.concat()
    };
    PAGE.replace("{title}", "Photos that are nearly the same").replace("{count}", &count).replace("{cards}", &cards)
}

fn card(position: usize, record: &Record, score: Option<f32>, engine: &Engine) -> String {
    let place = record.place_of_picture();
    let name = place.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let (url, path, name) = (escaped(&file_url(place)), escaped(&short(place).to_string_lossy()), escaped(&name));
    let (width, height) = (record.width.max(1), record.height.max(1));
    // Rows of equal height are filled by letting each card grow in proportion to its shape; extremes are cropped.
    let shape = (f64::from(width) / f64::from(height)).clamp(0.5, 2.8);
    let picture = match thumbnail(engine, record.key, WIDTH, HEIGHT).and_then(|picture| picture.to_jpeg(82)) {
        Ok(file) => format!("<img alt=\"\" src=\"data:image/jpeg;base64,{}\">", base64(&file)),
        Err(_) => "<span class=\"gone\">This photo cannot be read now.</span>".to_owned(),
    };
    let mut facts: Vec<String> = record.caption.as_deref().map(escaped).into_iter().collect();
    if let Some(time) = record.taken {
        facts.push(time.strftime("%-d %B %Y, %H:%M").to_string());
    }
    facts.extend(record.camera.as_deref().map(escaped));
    facts.push(format!("{width} × {height}"));
    let mut card =
        format!("<figure style=\"--shape:{shape:.3}\"><a href=\"{url}\" title=\"{path}\">{picture}</a><figcaption>");
    if let Some(score) = score {
        // Writing into a String cannot fail.
        let _ = write!(card, "<span class=\"score\" title=\"score\">{score:.3}</span>");
    }
    let _ = write!(card, "<span class=\"name\"><b>{}</b> {name}</span>", position + 1);
    let _ = writeln!(card, "<span class=\"facts\">{}</span></figcaption></figure>", facts.join(" · "));
    card
}

/// Text that means itself in HTML, in attributes too.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Templates are filled by name: a brace of a file name must not become one.
            '{' => safe.push_str("&#123;"),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root { --ground: #f6f5f3; --ink: #1c1b19; --soft: #75716a; --line: #e2dfd9; --card: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #161513; --ink: #eeebe5; --soft: #97928a; --line: #2b2926; --card: #1f1e1b; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 14px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif; }
header { padding: 2.2rem clamp(1rem, 3vw, 3rem) 1.2rem; }
h1 { margin: 0; font-size: clamp(1.2rem, 2.4vw, 1.7rem); font-weight: 600; letter-spacing: -.01em; overflow-wrap: anywhere; }
header p { margin: .3rem 0 0; color: var(--soft); }
main { display: flex; flex-wrap: wrap; gap: 12px; padding: 0 clamp(1rem, 3vw, 3rem) 3rem; }
h2 { flex-basis: 100%; margin: 1rem 0 0; font-size: 1rem; font-weight: 600; }
main::after { content: ""; flex: 1e4 1 0; }
figure { margin: 0; flex: var(--shape) 1 calc(var(--shape) * 220px); min-width: min(100%, 180px); max-width: calc(var(--shape) * 330px);
  background: var(--card); border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
figure a { display: block; aspect-ratio: var(--shape); background: var(--line); }
img { display: block; width: 100%; height: 100%; object-fit: cover; }
a:focus-visible { outline: 3px solid #3b82f6; outline-offset: -3px; }
figcaption { padding: .5rem .65rem .6rem; display: grid; grid-template-columns: minmax(0, 1fr) auto; column-gap: .6rem; }
.name { grid-row: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.name b { font-weight: 400; color: var(--soft); margin-right: .2em; }
.score { grid-row: 1; grid-column: 2; font-variant-numeric: tabular-nums; color: var(--soft); }
.facts { grid-column: 1 / -1; color: var(--soft); font-size: 12px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.gone { display: grid; place-items: center; height: 100%; padding: 1rem; color: var(--soft); text-align: center; }
.none { color: var(--soft); }
</style>
<header><h1>{title}</h1><p>{count}</p></header>
<main>
{cards}</main>
</html>
"#;

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nothing_that_a_name_holds_is_markup() {
        let name = "<script>'\"&{cards}\u{1b}";
        assert_eq!(escaped(name), "&lt;script&gt;&#39;&quot;&amp;&#123;cards}\u{fffd}");
    }
}
