//! A filter as SQL, as far as SQL can say it.
//!
//! The meaning of a condition is [`crate::query::Predicate`]'s. Here each becomes a clause that the indexes can serve; where SQL
//! is wider than the condition (a box around a circle) or has no word for it (path patterns), the predicate looks at the rows
//! that are left.

use rusqlite::types::Value;

use super::clause::Fields;
use super::{path, words};
use crate::Result;
use crate::query::{Bounds, Condition, Filter, Predicate};

/// Mean radius of the Earth in kilometres, as the predicate has it.
const EARTH: f64 = 6371.0088;

/// A `WHERE` condition and what is left to check.
#[derive(Debug)]
pub(super) struct Narrowed {
    /// The tables that the clause is about.
    pub(super) tables: &'static str,
    pub(super) clause: String,
    pub(super) values: Vec<Value>,
    /// For conditions on path and place only.
    pub(super) rest: Option<Predicate>,
}

/// All names of a column, for comparisons that fold case as Unicode does, which SQLite cannot.
pub(super) struct Names {
    pub(super) cameras: Vec<String>,
    pub(super) lenses: Vec<String>,
    pub(super) fields: Fields,
}

impl Narrowed {
    /// The filter over photos whose file is there.
    ///
    /// # Errors
    /// [`crate::Error::BadQuery`] for a path pattern that cannot be read and for a column that is not there.
    pub(super) fn new(filter: &Filter, names: &Names) -> Result<Narrowed> {
        let mut clauses = vec!["gone IS NULL".to_owned()];
        let mut values = Vec::new();
        let mut rest = Filter::new();
        for condition in filter.conditions() {
            match exact(condition, names, &mut values)? {
                Some(clause) => clauses.push(clause),
                None => {
                    if let Condition::Near { place, kilometres } = condition {
                        bounding_box((place.latitude, place.longitude), *kilometres, &mut clauses, &mut values);
                    }
                    rest = rest.and(condition.clone());
                }
            }
        }
        let rest = if rest.is_empty() { None } else { Some(rest.predicate(jiff::tz::TimeZone::system())?) };
        let tables = if asks_metadata(filter) { "photo LEFT JOIN meta USING (key)" } else { "photo" };
        Ok(Narrowed { tables, clause: clauses.join(" AND "), values, rest })
    }
}

/// Whether a filter names cameras or lenses.
pub(super) fn names_equipment(filter: &Filter) -> bool {
    filter.conditions().iter().any(|condition| matches!(plain(condition), Condition::Camera(_) | Condition::Lens(_)))
}

/// Whether a filter names columns.
pub(super) fn asks_metadata(filter: &Filter) -> bool {
    filter.conditions().iter().any(|condition| matches!(plain(condition), Condition::Where(_)))
}

/// The condition without negations.
fn plain(condition: &Condition) -> &Condition {
    match condition {
        Condition::Not(inner) => plain(inner),
        other => other,
    }
}

/// A clause that says the same as the condition and is never null; none where there is no such clause.
fn exact(condition: &Condition, names: &Names, values: &mut Vec<Value>) -> Result<Option<String>> {
    let start = values.len();
    let mut time = |operator: &str, time: &jiff::civil::DateTime| {
        values.push(Value::Text(time.to_string()));
        format!("time {operator} ?")
    };
    Ok(Some(match condition {
        Condition::After(at) => time(">=", at),
        Condition::Before(at) => time("<", at),
        Condition::Camera(wanted) => one_of("camera", containing(&names.cameras, wanted), values),
        Condition::Lens(wanted) => one_of("lens", containing(&names.lenses, wanted), values),
        Condition::Format(wanted) => one_of("format", wanted.iter().map(|name| name.to_lowercase()), values),
        Condition::Width(bounds) => between("width", *bounds, values),
        Condition::Height(bounds) => between("height", *bounds, values),
        Condition::Size(bounds) => between("size", *bounds, values),
        Condition::Where(expression) => names.fields.clause(expression, values)?,
        Condition::Mentions(text) => match words::all(text) {
            Some(query) => {
                values.push(Value::Text(query));
                "(key IN (SELECT rowid FROM words WHERE words MATCH ?))".to_owned()
            }
            None => "0".to_owned(),
        },
        Condition::Under(dirs) => {
            let mut any = vec!["0".to_owned()];
            for dir in dirs {
                let (clause, range) = path::photos_below(dir);
                any.push(clause);
                values.extend(range);
            }
            format!("({})", any.join(" OR "))
        }
        Condition::Not(inner) => match exact(inner, names, values)? {
            Some(clause) => format!("NOT {clause}"),
            None => {
                values.truncate(start);
                return Ok(None);
            }
        },
        _ => return Ok(None),
    }))
}

fn containing<'a>(all: &'a [String], wanted: &[String]) -> impl Iterator<Item = String> + use<'a> {
    let wanted: Vec<String> = wanted.iter().map(|name| name.to_lowercase()).collect();
    all.iter().filter(move |name| wanted.iter().any(|part| name.to_lowercase().contains(part))).cloned()
}

fn one_of(column: &str, names: impl Iterator<Item = String>, values: &mut Vec<Value>) -> String {
    let before = values.len();
    values.extend(names.map(Value::Text));
    let marks = vec!["?"; values.len() - before].join(", ");
    format!("({column} IS NOT NULL AND {column} IN ({marks}))")
}

fn between(column: &str, bounds: Bounds, values: &mut Vec<Value>) -> String {
    let number = |bound: u64| Value::Integer(i64::try_from(bound).unwrap_or(i64::MAX));
    values.extend([number(bounds.min.unwrap_or(0)), number(bounds.max.unwrap_or(u64::MAX))]);
    format!("({column} BETWEEN ? AND ?)")
}

/// A box around a circle on the sphere.
fn bounding_box((latitude, longitude): (f64, f64), radius: f64, clauses: &mut Vec<String>, values: &mut Vec<Value>) {
    // A hair wider than the circle: rounding must not lose a photo on the rim.
    const HAIR: f64 = 1e-6;
    let angle = radius.max(0.0) / EARTH;
    let high = angle.to_degrees() + HAIR;
    let (south, north) = (latitude - high, latitude + high);
    clauses.push("latitude BETWEEN ? AND ?".to_owned());
    values.extend([Value::Real(south), Value::Real(north)]);
    // The meridians that touch a circle without a pole in it are asin(sin r / cos latitude) away (Napier's rules).
    let ratio = angle.sin() / latitude.to_radians().cos();
    if south <= -90.0 || north >= 90.0 || !(0.0..1.0).contains(&ratio) {
        return;
    }
    let wide = ratio.asin().to_degrees() + HAIR;
    let (west, east) = (longitude - wide, longitude + wide);
    let wrap = |degrees: f64| (degrees + 180.0).rem_euclid(360.0) - 180.0;
    if west < -180.0 || east > 180.0 {
        clauses.push("(longitude >= ? OR longitude <= ?)".to_owned());
        values.extend([Value::Real(wrap(west)), Value::Real(wrap(east))]);
    } else {
        clauses.push("longitude BETWEEN ? AND ?".to_owned());
        values.extend([Value::Real(west), Value::Real(east)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddingSpace;
    use crate::catalog::{Catalog, Change, Key, Place, Record};
    use jiff::civil::date;
    use std::path::PathBuf;

    /// Photos that differ in everything a filter can ask for.
    fn records() -> Vec<Record> {
        let places = [
            None,
            Some((48.85, 2.35)),
            Some((48.95, 2.35)),
            Some((-17.8, 179.9)),
            Some((-17.8, -179.9)),
            Some((89.95, 60.0)),
        ];
        let cameras = [None, Some("Canon EOS 5D"), Some("ÉCLAIR Caméra"), Some("iPhone 13")];
        (0..240_u64)
            .map(|n| {
                let at = |list: usize| (n as usize * 7 + n as usize / list) % list;
                Record {
                    key: n + 1,
                    path: PathBuf::from(format!(
                        "/p/{}/{}/IMG {n}.jpg",
                        ["Holidays", "work", "Ä"][at(3)],
                        ["2024", "2025"][at(2)]
                    )),
                    size: n * 1000,
                    mtime: 1_600_000_000_123_456_789 + n as i64 * 86_400_000_000_000,
                    hash: "ab".repeat(32),
                    format: ["jpeg", "png", "tiff"][at(3)].to_owned(),
                    width: 100 + n as u32,
                    height: 400 - n as u32,
                    taken: (n % 3 == 0).then(|| {
                        date(2020, 1, 1).at(12, 0, 0, 0).checked_add(jiff::Span::new().days(n as i64 * 5)).unwrap()
                    }),
                    camera: cameras[at(4)].map(str::to_owned),
                    lens: [None, Some("EF 50mm")][at(2)].map(str::to_owned),
                    exposure: crate::image::Exposure::default(),
                    place: places[at(6)].map(|(latitude, longitude)| Place { latitude, longitude }),
                    link: None,
                    caption: None,
                    source: None,
                    item: None,
                }
            })
            .collect()
    }

    #[test]
    fn the_database_agrees_with_the_predicate() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let near =
            |latitude, longitude, kilometres| Condition::Near { place: Place { latitude, longitude }, kilometres };
        let mut conditions = vec![
            Condition::After(date(2020, 9, 20).at(3, 0, 0, 0)),
            Condition::Before(date(2020, 12, 1).at(0, 0, 0, 0)),
            Condition::Camera(names(&["eos"])),
            Condition::Camera(names(&["CAMÉRA", "iphone"])),
            Condition::Camera(names(&["nobody's"])),
            Condition::Lens(names(&["50MM"])),
            Condition::Format(names(&["JPEG", "tiff"])),
            Condition::Width(Bounds { min: Some(150), max: None }),
            Condition::Height(Bounds { min: None, max: Some(300) }),
            Condition::Size(Bounds { min: Some(5000), max: Some(u64::MAX) }),
            Condition::Path(names(&["holidays/2024"])),
            Condition::Path(names(&["IMG 1*.jpg", "/p/work"])),
            Condition::Under(vec![PathBuf::from("/p/Holidays"), PathBuf::from("/p/work/2024/")]),
            Condition::Under(vec![PathBuf::from("/p/Hol")]),
            Condition::Under(vec![PathBuf::from("/")]),
            Condition::Under(vec![]),
            near(48.85, 2.35, 5.0),
            near(48.85, 2.35, 50.0),
            near(-17.8, 179.99, 100.0),
            near(-17.8, -179.99, 10.0),
            near(89.9, -100.0, 30.0),
            near(0.0, 0.0, 30_000.0),
        ];
        let negations: Vec<Condition> = conditions.iter().map(|c| Condition::Not(Box::new(c.clone()))).collect();
        conditions.extend(negations);

        let dir = tempfile::tempdir().unwrap();
        let space = EmbeddingSpace { model: "m".to_owned(), fingerprint: "f".to_owned(), dim: 4 };
        let catalog = Catalog::create(dir.path(), &space).unwrap();
        let records = records();
        let changes: Vec<Change> = records.iter().cloned().map(|record| Change::Put(Box::new(record))).collect();
        catalog.write().unwrap().apply(&changes, 1000).unwrap();
        let reader = catalog.read().unwrap();
        let mut filters: Vec<Filter> = conditions.iter().map(|c| Filter::new().and(c.clone())).collect();
        for pair in conditions.windows(2).step_by(3) {
            filters.push(pair.iter().cloned().collect());
        }
        for filter in filters {
            let predicate = filter.predicate(jiff::tz::TimeZone::system()).unwrap();
            let expected: Vec<Key> = records.iter().filter(|r| predicate.matches(r)).map(|r| r.key).collect();
            let found: Vec<Key> = reader.select(&filter).unwrap().iter().collect();
            assert_eq!(found, expected, "{filter:?}");
            let mut listed: Vec<Key> = reader.list(&filter, 0, usize::MAX).unwrap().iter().map(|r| r.key).collect();
            listed.sort_unstable();
            assert_eq!(listed, expected, "{filter:?}");
        }
    }

    #[test]
    fn the_box_holds_the_circle() {
        let near = |place: (f64, f64), radius| {
            let (mut clauses, mut values) = (Vec::new(), Vec::new());
            bounding_box(place, radius, &mut clauses, &mut values);
            let clause = clauses.join(" AND ");
            move |point: (f64, f64)| {
                let db = rusqlite::Connection::open_in_memory().unwrap();
                let sql =
                    format!("SELECT {clause} FROM (SELECT {:?} AS latitude, {:?} AS longitude)", point.0, point.1);
                db.query_row(&sql, rusqlite::params_from_iter(values.iter()), |row| row.get::<_, bool>(0)).unwrap()
            }
        };
        for place in [(0.0, 0.0), (51.5, -0.12), (-17.8, 179.9), (64.1, -179.99), (89.9, 10.0), (-89.99, 0.0)] {
            for radius in [0.5, 10.0, 300.0, 2500.0] {
                let inside = near(place, radius);
                for bearing in 0..36 {
                    let (angle, bearing) = (radius * 0.9999 / EARTH, f64::from(bearing * 10).to_radians());
                    let (lat, lon) = (place.0.to_radians(), place.1.to_radians());
                    let to_lat = (lat.sin() * angle.cos() + lat.cos() * angle.sin() * bearing.cos()).asin();
                    let to_lon =
                        lon + (bearing.sin() * angle.sin() * lat.cos()).atan2(angle.cos() - lat.sin() * to_lat.sin());
                    let point = (to_lat.to_degrees(), (to_lon.to_degrees() + 180.0).rem_euclid(360.0) - 180.0);
                    assert!(inside(point), "{place:?} {radius} km: {point:?}");
                }
            }
        }
    }
}
