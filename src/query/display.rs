//! [`Query`] to query text, in the one form that reads back as the same query.

use std::fmt::{self, Display, Formatter, Write};

use super::{Bounds, Condition, Filter, Query, Term};

/// Text in quotes, as the parser reads them.
struct Quoted<T>(T);

impl<T: Display> Display for Quoted<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.to_string().chars() {
            if matches!(c, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

impl Display for Term {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Term::Text(words) => write!(f, "{}", Quoted(words)),
            Term::Image(path) => write!(f, "image:{}", Quoted(path.display())),
            Term::ImageBytes(bytes) => write!(f, "<picture of {} bytes>", bytes.len()),
            Term::Vector(vector) => write!(f, "<vector of {}>", vector.len()),
            Term::Like(key) => write!(f, "like:#{key}"),
            Term::LikePath(path) => write!(f, "like:{}", Quoted(path.display())),
        }
    }
}

/// Query text. It reads back as an equal query, unless terms are bytes or vectors or a path is not Unicode, which text cannot
/// say, or two conditions name the same key, which text takes for alternatives.
impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (position, part) in self.parts.iter().enumerate() {
            f.write_str(match (position, part.weight.is_sign_negative()) {
                (0, false) => "",
                (_, false) => " + ",
                (0, true) => "- ",
                (_, true) => " - ",
            })?;
            if part.weight.abs() != 1.0 {
                write!(f, "{}:", part.weight.abs())?;
            }
            write!(f, "{}", part.term)?;
        }
        if !self.parts.is_empty() && !self.filter.is_empty() {
            f.write_char(' ')?;
        }
        write!(f, "{}", self.filter)
    }
}

impl Display for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (position, condition) in self.conditions().iter().enumerate() {
            if position > 0 {
                f.write_char(' ')?;
            }
            write!(f, "{condition}")?;
        }
        Ok(())
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write(f, "")
    }
}

impl Condition {
    fn write(&self, f: &mut Formatter<'_>, sign: &str) -> fmt::Result {
        match self {
            Condition::After(time) => write!(f, "{sign}after:{time}"),
            Condition::Before(time) => write!(f, "{sign}before:{time}"),
            Condition::Camera(names) => names_to(f, sign, "camera", names),
            Condition::Lens(names) => names_to(f, sign, "lens", names),
            Condition::Near { place, kilometres } => {
                write!(f, "{sign}near:{},{}~{kilometres}km", place.latitude, place.longitude)
            }
            Condition::Path(patterns) => names_to(f, sign, "path", patterns),
            Condition::Under(paths) => names_to(f, sign, "in", paths.iter().map(|path| path.display())),
            Condition::Format(names) => write!(f, "{sign}type:{}", names.join(",")),
            Condition::Width(bounds) => write!(f, "{sign}width:{bounds}"),
            Condition::Height(bounds) => write!(f, "{sign}height:{bounds}"),
            Condition::Size(bounds) => write!(f, "{sign}size:{bounds}"),
            Condition::Where(expression) => write!(f, "{sign}where:{}", Quoted(expression)),
            Condition::Mentions(words) => write!(f, "{sign}text:{}", Quoted(words)),
            Condition::Not(inner) => inner.write(f, if sign.is_empty() { "-" } else { "" }),
        }
    }
}

fn names_to<T: Display>(
    f: &mut Formatter<'_>,
    sign: &str,
    key: &str,
    names: impl IntoIterator<Item = T>,
) -> fmt::Result {
    for (position, name) in names.into_iter().enumerate() {
        let space = if position > 0 { " " } else { "" };
        write!(f, "{space}{sign}{key}:{}", Quoted(name))?;
    }
    Ok(())
}

impl Display for Bounds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(min) = self.min {
            write!(f, "{min}")?;
        }
        f.write_str("..")?;
        self.max.map_or(Ok(()), |max| write!(f, "{max}"))
    }
}
