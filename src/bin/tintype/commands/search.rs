//! `tintype search` and `tintype similar`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use tintype::query::Parser;
use tintype::{Condition, Engine, Error, Key, Part, Query, Ranking, Term};

use crate::answer::Answer;
use crate::args::{Bounds, Common, PageArgs, SearchArgs, SimilarArgs};
use crate::interrupt::Interrupt;
use crate::output::{Outcome, Talk, count};
use crate::{answer, library, output, update};

/// Finds photos, after a look for new ones.
pub(crate) fn search(args: &SearchArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let text = query_text(args);
    let query = match parser().parse(&text) {
        Ok(query) => query,
        Err(error) => {
            output::point_at(&error, &text, talk);
            return Ok(Outcome::Usage);
        }
    };
    let mut outcome = Outcome::Done;
    let engine = if args.no_update {
        library::open_existing(common, talk)?
    } else {
        let engine = if args.within.is_empty() {
            let hint = || format!("{}, and so does --in FOLDER", library::no_library(common));
            library::open(common, talk)?.with_context(hint)?
        } else {
            library::open_or_create(&args.within, common, talk)?
        };
        outcome = refresh(&engine, &scope(args, &query), args, talk)?;
        engine
    };
    if !matches!(query.parts.as_slice(), [] | [Part { term: Term::Text(_), .. }]) {
        talk.say(talk.palette.dim(format_args!("looking for {}", output::printable(&query.to_string()))));
    }
    let found = match find(&engine, query, text.clone(), &args.within, args.ranking(), &args.page, talk) {
        // A column that is not there is known only now.
        Err(error) => match error.downcast_ref() {
            Some(error @ Error::BadQuery { span, .. }) if !span.is_empty() => {
                output::point_at(error, &text, talk);
                return Ok(Outcome::Usage);
            }
            _ => return Err(error),
        },
        found => found?,
    };
    answer::give(&found, &engine, &args.output, talk)?;
    Ok(outcome)
}

/// Finds photos that look like a picture, in the library as it is.
pub(crate) fn similar(args: &SimilarArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let engine = library::open_existing(common, talk)?;
    let title = format!("like {}", args.file.display());
    let found = find(&engine, Query::image(&args.file), title, &args.within, Ranking::Image, &args.page, talk)?;
    answer::give(&found, &engine, &args.output, talk)?;
    Ok(Outcome::Done)
}

/// The parser as a shell user expects it.
fn parser() -> Parser<'static> {
    match dirs::home_dir() {
        Some(home) => Parser::new().home(home),
        None => Parser::new(),
    }
}

/// All of the query as one text; `--add` and `--subtract` are its signs.
fn query_text(args: &SearchArgs) -> String {
    let mut text = args.query.join(" ");
    for (sign, parts) in [("+", &args.add), ("-", &args.subtract)] {
        for part in parts {
            if !text.is_empty() {
                text.push(' ');
            }
            text.extend([sign, " ", part]);
        }
    }
    text
}

/// What a search brings up to date: the folders that it is about, or all that the library knows.
fn scope(args: &SearchArgs, query: &Query) -> Vec<PathBuf> {
    let mut paths = args.within.clone();
    for condition in query.filter.conditions() {
        if let Condition::Under(folders) = condition {
            paths.extend(folders.iter().filter(|folder| folder.exists()).cloned());
        }
    }
    paths
}

/// Looks for new photos. What stands in the way of that does not stand in the way of an answer from what is there.
fn refresh(engine: &Engine, scope: &[PathBuf], args: &SearchArgs, talk: &Talk) -> anyhow::Result<Outcome> {
    let mut paths = scope.to_vec();
    if paths.is_empty() {
        paths = update::known_folders(engine, talk)?;
    }
    if paths.is_empty() {
        return Ok(Outcome::Done);
    }
    let interrupt = Interrupt::listen()?;
    let report = match update::update(engine, &paths, &args.walk, &Bounds::default(), &interrupt, talk) {
        Ok(report) => report,
        Err(Error::Busy { .. }) => {
            talk.say(
                talk.palette.dim("another process is bringing the library up to date; this is what it has so far"),
            );
            return Ok(Outcome::Done);
        }
        Err(error @ (Error::NoRoot { .. } | Error::Cancelled | Error::BadPattern { .. })) => return Err(error.into()),
        Err(error) => {
            talk.say(format_args!(
                "{} the photos could not be brought up to date: {error}",
                talk.palette.yellow("note:")
            ));
            return Ok(Outcome::Partly);
        }
    };
    let known = report.skipped.iter().filter(|skipped| !update::is_news(skipped)).count();
    if known > 0 {
        let files = count(known as u64, "file");
        let line = format!("{files} still cannot be read; `tintype index` says why");
        talk.say(talk.palette.dim(line));
    }
    Ok(update::tell_skipped(report.skipped.iter().filter(|skipped| update::is_news(skipped)), args.walk.verbose, talk))
}

fn find(
    engine: &Engine,
    query: Query,
    title: String,
    within: &[PathBuf],
    ranking: Ranking,
    page: &PageArgs,
    talk: &Talk,
) -> anyhow::Result<Answer> {
    let begun = Instant::now();
    let scored = query.ranks();
    let mut search = engine.search(query).ranking(ranking).recall(page.recall).under(within);
    search = search.limit(page.limit).offset(page.offset);
    if let Some(score) = page.min_score {
        search = search.min_score(score);
    }
    let hits = search.run()?;
    let model = engine.encoder().space().model.clone();
    let took = update::duration(begun.elapsed());
    let line = match (hits.len(), scored) {
        (0, _) => format!("no photo fits ({model}, {took})"),
        (n, true) => format!("{} found by {model} in {took}", count(n as u64, "photo")),
        (n, false) => format!("{}, newest first, in {took}", count(n as u64, "photo")),
    };
    talk.say(talk.palette.dim(line));
    let keys: Vec<Key> = hits.iter().map(|hit| hit.record.key).collect();
    let metadata = engine.metadata(&keys)?;
    Ok(Answer { title, model, scored, hits, metadata })
}
