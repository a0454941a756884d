//! What a camera wrote beside the pixels: orientation, time, camera, lens, exposure, place.
//!
//! Cameras leave placeholders where they know nothing: dates of zeros, coordinates of 0 ÷ 0, names of spaces. Such fields
//! are empty here. Times are civil times as the camera's clock showed them; the offset to UTC is ignored, because few
//! cameras write it, and a library that mixes both kinds sorts badly.

use std::io::Cursor;

use exif::{Exif, Field, In, Rational, Reader, Tag, Value};
use jiff::civil::DateTime;

use super::Orientation;

/// EXIF facts of a picture; a field is empty when the file does not say it or says nonsense.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// When it was taken, local civil time as written by the camera.
    pub taken: Option<DateTime>,
    /// Maker and model, without repeating the maker: `Canon PowerShot A2500`.
    pub camera: Option<String>,
    /// Lens model.
    pub lens: Option<String>,
    /// How it was exposed.
    pub exposure: Exposure,
    /// Latitude and longitude in degrees, north and east positive.
    pub place: Option<(f64, f64)>,
    /// How the stored pixels must be turned to stand upright.
    pub orientation: Orientation,
}

/// How a photo was exposed, as far as the camera says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exposure {
    /// The f-number: 2.8 for f/2.8.
    pub aperture: Option<f64>,
    /// Exposure time in seconds.
    pub time: Option<f64>,
    /// Sensitivity by ISO 12232.
    pub iso: Option<u32>,
    /// Focal length in millimetres, of the lens itself and not of one that would show the same on film.
    pub focal_length: Option<f64>,
}

impl Exposure {
    fn of(exif: &Exif) -> Exposure {
        Exposure {
            aperture: positive(exif, Tag::FNumber),
            time: positive(exif, Tag::ExposureTime),
            iso: primary(exif, Tag::PhotographicSensitivity)
                .and_then(|field| field.value.get_uint(0))
                // 65,535 stands for more than the field can hold.
                .filter(|iso| (1..0xffff).contains(iso)),
            focal_length: positive(exif, Tag::FocalLength),
        }
    }
}

/// A fraction above zero; lenses without contacts leave 0, and 0 ÷ 0 is unknown.
fn positive(exif: &Exif, tag: Tag) -> Option<f64> {
    let Value::Rational(parts) = &primary(exif, tag)?.value else { return None };
    parts.first().filter(|part| part.num != 0 && part.denom != 0).map(Rational::to_f64)
}

impl Metadata {
    /// Reads the EXIF block of a JPEG, PNG, WebP, TIFF or HEIF file; never fails, a damaged block is an empty one.
    pub fn read(bytes: &[u8]) -> Metadata {
        let Some(exif) = read_exif(bytes) else { return Metadata::default() };
        let taken = [Tag::DateTimeOriginal, Tag::DateTimeDigitized, Tag::DateTime];
        Metadata {
            taken: taken.into_iter().find_map(|tag| date_time(primary(&exif, tag)?)),
            camera: camera(text(&exif, Tag::Make), text(&exif, Tag::Model)),
            lens: text(&exif, Tag::LensModel),
            exposure: Exposure::of(&exif),
            place: place(&exif),
            orientation: orientation_of(&exif),
        }
    }
}

/// How a picture file says its pixels must be turned.
pub(super) fn orientation(bytes: &[u8]) -> Orientation {
    read_exif(bytes).map(|exif| orientation_of(&exif)).unwrap_or_default()
}

/// A block that is damaged in part gives what can be read of it.
fn read_exif(bytes: &[u8]) -> Option<Exif> {
    let mut reader = Reader::new();
    reader.continue_on_error(true);
    let read = reader.read_from_container(&mut Cursor::new(bytes));
    read.or_else(|error| error.distill_partial_result(|_| {})).ok()
}

fn primary(exif: &Exif, tag: Tag) -> Option<&Field> {
    exif.get_field(tag, In::PRIMARY)
}

fn orientation_of(exif: &Exif) -> Orientation {
    let value = primary(exif, Tag::Orientation).and_then(|field| field.value.get_uint(0));
    Orientation::from_exif(value.unwrap_or(1))
}

/// `YYYY:MM:DD HH:MM:SS`; some writers use other separators, or leave zeros and spaces where they know nothing.
fn date_time(field: &Field) -> Option<DateTime> {
    let text = ascii(&field.value)?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let mut next = || numbers.next()?.parse::<i16>().ok();
    let (year, month, day) = (next()?, next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next().unwrap_or(0));
    let small = |number: i16| i8::try_from(number).ok();
    // Photography is younger than this; year 0 and the like are placeholders.
    let year = Some(year).filter(|year| (1826..=9999).contains(year))?;
    DateTime::new(year, small(month)?, small(day)?, small(hour)?, small(minute)?, small(second)?, 0).ok()
}

/// The text of a field: up to the first NUL, without control characters and outer spaces; none if nothing is left.
fn ascii(value: &Value) -> Option<String> {
    let Value::Ascii(parts) = value else { return None };
    let part = parts.iter().map(|part| part.split(|byte| *byte == 0).next().unwrap_or_default());
    let part = part.into_iter().find(|part| !part.trim_ascii().is_empty())?;
    let text: String = String::from_utf8_lossy(part).chars().filter(|c| !c.is_control() && *c != '\u{FFFD}').collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let says_something = text.chars().any(char::is_alphanumeric);
    says_something.then_some(text)
}

fn text(exif: &Exif, tag: Tag) -> Option<String> {
    ascii(&primary(exif, tag)?.value).filter(|text| !text.eq_ignore_ascii_case("unknown"))
}

/// Makers write long names of theirs, and models that start with a short one: `NIKON CORPORATION`, `NIKON D70`.
fn camera(make: Option<String>, model: Option<String>) -> Option<String> {
    match (make, model) {
        (Some(make), Some(model)) => {
            let first_word = |text: &str| text.split(' ').next().unwrap_or_default().to_ascii_lowercase();
            let repeats = first_word(&make) == first_word(&model)
                || model.to_ascii_lowercase().starts_with(&make.to_ascii_lowercase());
            Some(if repeats { model } else { format!("{make} {model}") })
        }
        (make, model) => model.or(make),
    }
}

fn place(exif: &Exif) -> Option<(f64, f64)> {
    let latitude = coordinate(exif, Tag::GPSLatitude, Tag::GPSLatitudeRef, 'S', 90.0)?;
    let longitude = coordinate(exif, Tag::GPSLongitude, Tag::GPSLongitudeRef, 'W', 180.0)?;
    // Receivers without a fix write zeros; nobody takes photos on the equator south of Ghana to the metre.
    (latitude != 0.0 || longitude != 0.0).then_some((latitude, longitude))
}

/// Degrees, minutes and seconds, each a fraction. Missing minutes or seconds are none; 0 ÷ 0 is unknown.
fn coordinate(exif: &Exif, tag: Tag, reference: Tag, negative: char, limit: f64) -> Option<f64> {
    let Value::Rational(parts) = &primary(exif, tag)?.value else { return None };
    let fraction = |part: &Rational| (part.denom != 0).then(|| part.to_f64());
    let mut degrees = fraction(parts.first()?)?;
    for (part, divisor) in parts.iter().skip(1).zip([60.0, 3600.0]) {
        degrees += fraction(part)? / divisor;
    }
    let is_negative =
        primary(exif, reference).and_then(|field| ascii(&field.value))?.to_ascii_uppercase().starts_with(negative);
    let signed = if is_negative { -degrees } else { degrees };
    (signed.is_finite() && signed.abs() <= limit).then_some(signed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exif::experimental::Writer;

    fn field(tag: Tag, value: Value) -> Field {
        Field { tag, ifd_num: In::PRIMARY, value }
    }

    fn ascii_field(tag: Tag, text: &[u8]) -> Field {
        field(tag, Value::Ascii(vec![text.to_vec()]))
    }

    /// A TIFF file with nothing but EXIF in it.
    fn written(fields: &[Field]) -> Metadata {
        let mut writer = Writer::new();
        fields.iter().for_each(|field| writer.push_field(field));
        let mut bytes = Cursor::new(Vec::new());
        writer.write(&mut bytes, false).unwrap();
        Metadata::read(&bytes.into_inner())
    }

    fn dms(parts: [(u32, u32); 3]) -> Value {
        Value::Rational(parts.map(|(num, denom)| Rational { num, denom }).to_vec())
    }

    #[test]
    fn makers_are_not_repeated() {
        let name = |make, model| written(&[ascii_field(Tag::Make, make), ascii_field(Tag::Model, model)]).camera;
        assert_eq!(name(b"Canon", b"Canon PowerShot A2500").as_deref(), Some("Canon PowerShot A2500"));
        assert_eq!(name(b"NIKON CORPORATION", b"NIKON D70").as_deref(), Some("NIKON D70"));
        assert_eq!(name(b"FUJIFILM  ", b"FinePix S1Pro\0junk").as_deref(), Some("FUJIFILM FinePix S1Pro"));
        assert_eq!(name(b"   ", b"\x01\x02").as_deref(), None);
    }

    #[test]
    fn placeholder_dates_are_none() {
        let taken = |text: &[u8]| written(&[ascii_field(Tag::DateTimeOriginal, text)]).taken;
        assert_eq!(taken(b"2016:05:04 03:02:01"), Some(jiff::civil::date(2016, 5, 4).at(3, 2, 1, 0)));
        assert_eq!(taken(b"2016-05-04T03:02:01+02:00"), Some(jiff::civil::date(2016, 5, 4).at(3, 2, 1, 0)));
        for text in [
            &b"0000:00:00 00:00:00"[..],
            b"    :  :     :  :  ",
            b"2016:13:04 03:02:01",
            b"2016:02:30 00:00:00",
            b"",
            b"x",
        ] {
            assert_eq!(taken(text), None, "{text:?}");
        }
    }

    #[test]
    fn places_are_signed_and_sane() {
        let place = |latitude, south: &[u8], longitude| {
            written(&[
                field(Tag::GPSLatitude, latitude),
                ascii_field(Tag::GPSLatitudeRef, south),
                field(Tag::GPSLongitude, longitude),
                ascii_field(Tag::GPSLongitudeRef, b"E"),
            ])
            .place
        };
        let east = || dms([(2, 1), (21, 1), (0, 1)]);
        assert_eq!(place(dms([(48, 1), (30, 1), (36, 1)]), b"S", east()), Some((-48.51, 2.35)));
        assert_eq!(place(dms([(48, 1), (30, 0), (36, 1)]), b"N", east()), None);
        assert_eq!(place(dms([(91, 1), (0, 1), (0, 1)]), b"N", east()), None);
        assert_eq!(place(dms([(0, 0), (0, 0), (0, 0)]), b"N", east()), None);
        assert_eq!(place(dms([(0, 1), (0, 1), (0, 1)]), b"N", dms([(0, 1), (0, 1), (0, 1)])), None);
    }

    #[test]
    fn exposure_is_read_and_placeholders_are_none() {
        let fraction = |tag, num, denom| field(tag, Value::Rational(vec![Rational { num, denom }]));
        let exposure = written(&[
            fraction(Tag::FNumber, 28, 10),
            fraction(Tag::ExposureTime, 1, 250),
            fraction(Tag::FocalLength, 50, 1),
            field(Tag::PhotographicSensitivity, Value::Short(vec![400])),
        ])
        .exposure;
        let told = Exposure { aperture: Some(2.8), time: Some(0.004), iso: Some(400), focal_length: Some(50.0) };
        assert_eq!(exposure, told);
        let nothing = written(&[
            fraction(Tag::FNumber, 0, 1),
            fraction(Tag::ExposureTime, 0, 0),
            fraction(Tag::FocalLength, 5, 0),
            field(Tag::PhotographicSensitivity, Value::Short(vec![0])),
        ]);
        assert_eq!(nothing.exposure, Exposure::default());
    }

    #[test]
    fn orientation_is_read_and_nonsense_is_upright() {
        let orientation = |value| written(&[field(Tag::Orientation, Value::Short(vec![value]))]).orientation;
        assert_eq!(orientation(6), Orientation::from_exif(6));
        assert!(orientation(6).is_transposed());
        assert_eq!(orientation(0), Orientation::default());
        assert_eq!(orientation(9), Orientation::default());
    }

    #[test]
    fn damage_is_an_empty_block() {
        assert_eq!(Metadata::read(b""), Metadata::default());
        assert_eq!(Metadata::read(b"\xFF\xD8\xFF\xE1\x00\x20Exif\0\0II*\0\xFF\xFF\xFF\xFF"), Metadata::default());
    }
}
