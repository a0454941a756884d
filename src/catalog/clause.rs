//! A condition on columns as SQL: names looked up, values bound.

use rusqlite::types::Value as Sql;

use crate::query::{Column, Expression, Operand, Value};
use crate::{Error, Result};

/// Columns that every photo has, by the names that people may use, and what SQL calls them.
const BUILTIN: &[(&str, &str)] = &[
    ("aperture", "aperture"),
    ("camera", "camera"),
    ("caption", "caption"),
    ("exposure_time", "exposure_time"),
    ("focal_length", "focal_length"),
    ("format", "nullif(format, '')"),
    ("hash", "lower(hex(hash))"),
    ("height", "nullif(height, 0)"),
    ("iso", "iso"),
    ("key", "key"),
    ("latitude", "latitude"),
    ("lens", "lens"),
    ("link", "link"),
    ("longitude", "longitude"),
    ("path", "path"),
    ("size", "nullif(size, 0)"),
    ("taken", "taken"),
    ("time", "time"),
    ("type", "nullif(format, '')"),
    ("width", "nullif(width, 0)"),
];

/// The columns of metadata: name and number.
#[derive(Debug, Default)]
pub(super) struct Fields(pub(super) Vec<(String, i64)>);

impl Fields {
    /// What SQL calls a column. A name that both the collection and every photo have is the collection's where it says something.
    fn resolve(&self, column: &Column) -> Result<String> {
        let name = column.name.as_str();
        let exact = self.0.iter().find(|(other, _)| other == name);
        let field = exact.or_else(|| self.0.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)));
        let builtin = BUILTIN.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, sql)| *sql);
        match (field, builtin) {
            (Some((_, id)), Some(builtin)) => Ok(format!("coalesce(f{id}, {builtin})")),
            (Some((_, id)), None) => Ok(format!("f{id}")),
            (None, Some(builtin)) => Ok(builtin.to_owned()),
            (None, None) => Err(Error::BadQuery { message: self.unknown(name), span: column.span.clone() }),
        }
    }

    fn unknown(&self, name: &str) -> String {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.extend(BUILTIN.iter().map(|(name, _)| *name));
        names.sort_unstable();
        names.dedup();
        let near = names.iter().map(|other| (crate::query::edits(&name.to_lowercase(), &other.to_lowercase()), *other));
        let near = near.min().filter(|(edits, near)| *edits <= 2 && *edits < near.len());
        if let Some((_, near)) = near {
            return format!("there is no column {name}; did you mean {near}?");
        }
        const LISTED: usize = 40;
        let more = if names.len() > LISTED { ", …" } else { "" };
        names.truncate(LISTED);
        format!("there is no column {name}; there are {}{more}", names.join(", "))
    }

    /// SQL that is 1 where the condition holds and 0 where it does not or cannot be said.
    pub(super) fn clause(&self, expression: &Expression, values: &mut Vec<Sql>) -> Result<String> {
        let joined = |parts: &[Expression], word: &str, values: &mut Vec<Sql>| -> Result<String> {
            let parts: Vec<String> = parts.iter().map(|part| self.clause(part, values)).collect::<Result<_>>()?;
            Ok(format!("({})", parts.join(word)))
        };
        let bound = |value: &Value, values: &mut Vec<Sql>| {
            values.push(match value {
                Value::Integer(whole) => Sql::Integer(*whole),
                Value::Real(real) => Sql::Real(*real),
                Value::Text(text) => Sql::Text(text.clone()),
            });
        };
        let test = match expression {
            Expression::Any(parts) => return joined(parts, " OR ", values),
            Expression::All(parts) => return joined(parts, " AND ", values),
            Expression::Not(inner) => return Ok(format!("NOT {}", self.clause(inner, values)?)),
            Expression::Compare(left, comparison, right) => {
                let mut side = |operand: &Operand| match operand {
                    Operand::Column(column) => self.resolve(column),
                    Operand::Value(value) => {
                        bound(value, values);
                        Ok("?".to_owned())
                    }
                };
                format!("{} {} {}", side(left)?, comparison.sign(), side(right)?)
            }
            Expression::In(column, list) => {
                list.iter().for_each(|value| bound(value, values));
                format!("{} IN ({})", self.resolve(column)?, vec!["?"; list.len()].join(", "))
            }
            Expression::Like(column, pattern) => {
                values.push(Sql::Text(pattern.clone()));
                format!("{} LIKE ?", self.resolve(column)?)
            }
            Expression::Between(column, low, high) => {
                bound(low, values);
                bound(high, values);
                format!("{} BETWEEN ? AND ?", self.resolve(column)?)
            }
            Expression::IsNull(column) => format!("{} IS NULL", self.resolve(column)?),
        };
        Ok(format!("coalesce({test}, 0)"))
    }
}
