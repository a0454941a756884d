//! Which picture format a file holds, by its first bytes.
//!
//! Content decides, never the extension: cameras, phones and messengers name files wrongly all the time. Formats that
//! cannot be decoded yet are recognised as well, so that a report can name them instead of calling them damaged.

use super::ifd::Ifd;

/// A picture format, recognised by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Format {
    /// JPEG, MPO and progressive files included.
    Jpeg,
    /// PNG and APNG.
    Png,
    /// WebP, lossy or lossless.
    WebP,
    /// GIF.
    Gif,
    /// TIFF and BigTIFF.
    Tiff,
    /// Windows bitmap.
    Bmp,
    /// Netpbm: PBM, PGM, PPM, PAM, PFM.
    Pnm,
    /// Quite OK Image.
    Qoi,
    /// HEIC and HEIF. Not decoded yet.
    Heic,
    /// AVIF. Not decoded yet.
    Avif,
    /// JPEG XL. Not decoded yet.
    JpegXl,
    /// JPEG 2000. Not decoded yet.
    Jpeg2000,
    /// Raw files of cameras: DNG, CR2, CR3, NEF, ARW, ORF, RAF, RW2 and others. Not decoded yet.
    Raw,
    /// Photoshop documents. Not decoded yet.
    Psd,
    /// OpenEXR. Not decoded yet.
    Exr,
    /// Windows icons. Not decoded yet.
    Ico,
}

impl Format {
    /// As many leading bytes as [`Format::sniff`] ever looks at. With fewer bytes some raw formats pass for TIFF.
    pub const SNIFF_LEN: usize = 1024;

    /// Recognises a format from the first bytes of a file, at best [`Format::SNIFF_LEN`] of them.
    pub fn sniff(head: &[u8]) -> Option<Format> {
        let starts = |magic: &[u8]| head.starts_with(magic);
        let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
        if starts(b"\xFF\xD8\xFF") {
            Some(Format::Jpeg)
        } else if starts(b"\x89PNG\r\n\x1a\n") {
            Some(Format::Png)
        } else if starts(b"RIFF") && at(8, b"WEBP") {
            Some(Format::WebP)
        } else if starts(b"GIF87a") || starts(b"GIF89a") {
            Some(Format::Gif)
        } else if at(4, b"ftyp") {
            sniff_isobmff(head)
        } else if is_raw_magic(head) {
            Some(Format::Raw)
        } else if starts(b"II*\0") || starts(b"MM\0*") || starts(b"II+\0") || starts(b"MM\0+") {
            Some(if is_raw_tiff(head) { Format::Raw } else { Format::Tiff })
        } else if starts(b"BM") && is_bmp(head) {
            Some(Format::Bmp)
        } else if is_pnm(head) {
            Some(Format::Pnm)
        } else if starts(b"qoif") {
            Some(Format::Qoi)
        } else if starts(b"\xFF\x0A") || starts(b"\0\0\0\x0CJXL \r\n\x87\n") {
            Some(Format::JpegXl)
        } else if starts(b"\0\0\0\x0CjP  \r\n\x87\n") || starts(b"\xFF\x4F\xFF\x51") {
            Some(Format::Jpeg2000)
        } else if starts(b"8BPS\0\x01") || starts(b"8BPS\0\x02") {
            Some(Format::Psd)
        } else if starts(b"\x76\x2F\x31\x01") {
            Some(Format::Exr)
        } else if starts(b"\0\0\x01\0") && is_ico(head) {
            Some(Format::Ico)
        } else {
            None
        }
    }

    /// Lower-case name for records and queries: `jpeg`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "jpeg",
            Format::Png => "png",
            Format::WebP => "webp",
            Format::Gif => "gif",
            Format::Tiff => "tiff",
            Format::Bmp => "bmp",
            Format::Pnm => "pnm",
            Format::Qoi => "qoi",
            Format::Heic => "heic",
            Format::Avif => "avif",
            Format::JpegXl => "jxl",
            Format::Jpeg2000 => "jp2",
            Format::Raw => "raw",
            Format::Psd => "psd",
            Format::Exr => "exr",
            Format::Ico => "ico",
        }
    }

    /// Name for people: `HEIC`, `camera raw`.
    pub fn label(self) -> &'static str {
        match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
            Format::Gif => "GIF",
            Format::Tiff => "TIFF",
            Format::Bmp => "BMP",
            Format::Pnm => "PNM",
            Format::Qoi => "QOI",
            Format::Heic => "HEIC",
            Format::Avif => "AVIF",
            Format::JpegXl => "JPEG XL",
            Format::Jpeg2000 => "JPEG 2000",
            Format::Raw => "camera raw",
            Format::Psd => "Photoshop",
            Format::Exr => "OpenEXR",
            Format::Ico => "icon",
        }
    }

    /// Whether [`Photo::decode`](super::Photo::decode) reads this format.
    pub fn is_supported(self) -> bool {
        use Format::{Bmp, Gif, Jpeg, Png, Pnm, Qoi, Tiff, WebP};
        matches!(self, Jpeg | Png | WebP | Gif | Tiff | Bmp | Pnm | Qoi)
    }
}

/// ISO base media files are videos as often as pictures: only the brands of still pictures count.
fn sniff_isobmff(head: &[u8]) -> Option<Format> {
    let box_len = u32::from_be_bytes(head.get(..4)?.try_into().ok()?) as usize;
    let end = box_len.clamp(12, head.len().max(12)).min(head.len());
    // The major brand, then (after the minor version) the compatible ones.
    let major = head.get(8..12)?;
    let compatible = head.get(16..end).unwrap_or_default().chunks_exact(4);
    let of_brand = |brand: &[u8]| match brand {
        b"avif" | b"avis" => Some(Format::Avif),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" => Some(Format::Heic),
        b"crx " => Some(Format::Raw),
        b"jxl " => Some(Format::JpegXl),
        _ => None,
    };
    let generic = matches!(major, b"mif1" | b"msf1" | b"mif2");
    of_brand(major).or_else(|| {
        let by_compatible = generic.then(|| compatible.clone().find_map(of_brand)).flatten();
        by_compatible.or(generic.then_some(Format::Heic))
    })
}

/// Raw formats with a magic number of their own.
fn is_raw_magic(head: &[u8]) -> bool {
    const MAGICS: [&[u8]; 9] =
        [b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"\0MRM", b"FOVb", b"II\x1a\0\0\0HEAPCCDR", b"ARRI"];
    MAGICS.iter().any(|magic| head.starts_with(magic)) || (head.starts_with(b"II*\0") && head.get(8..10) == Some(b"CR"))
}

/// Raw files in TIFF clothes: DNG says so; others keep a reduced picture in the first directory and the sensor's data in
/// a sub-directory, which no ordinary TIFF writer does.
fn is_raw_tiff(head: &[u8]) -> bool {
    const NEW_SUBFILE_TYPE: u16 = 0x00FE;
    const MAKE: u16 = 0x010F;
    const SUB_IFDS: u16 = 0x014A;
    const DNG_VERSION: u16 = 0xC612;
    let Some(ifd) = Ifd::first(head) else { return false };
    let is_reduced = ifd.find(NEW_SUBFILE_TYPE).is_some_and(|entry| entry.inline_uint() & 1 == 1);
    ifd.find(DNG_VERSION).is_some() || (is_reduced && ifd.find(MAKE).is_some() && ifd.find(SUB_IFDS).is_some())
}

/// Two letters are too little for a magic number: the size of the header must be one of those in use.
fn is_bmp(head: &[u8]) -> bool {
    let header = head.get(14..18).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    matches!(header, Some(12 | 16 | 40 | 52 | 56 | 64 | 108 | 124))
}

fn is_pnm(head: &[u8]) -> bool {
    let kind = matches!(head.get(..2), Some([b'P', b'1'..=b'7' | b'F' | b'f']));
    kind && head.get(2).is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b'#')
}

/// The magic number of icons is mostly zeros: the first entry must make sense too.
fn is_ico(head: &[u8]) -> bool {
    let count = head.get(4..6).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    (1..256).contains(&count) && head.get(9) == Some(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn videos_and_texts_are_no_pictures() {
        for head in [
            &b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41"[..],
            b"",
            b"P",
            b"P5",
            b"BM is short",
            b"PK\x03\x04",
            b"P6x",
        ] {
            assert_eq!(Format::sniff(head), None, "{head:?}");
        }
    }

    #[test]
    fn brands_of_stills_are_told_apart() {
        assert_eq!(Format::sniff(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), Some(Format::Heic));
        assert_eq!(Format::sniff(b"\0\0\0\x1Cftypmif1\0\0\0\0mif1avifmiaf"), Some(Format::Avif));
        assert_eq!(Format::sniff(b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf"), Some(Format::Heic));
        assert_eq!(Format::sniff(b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom"), Some(Format::Raw));
    }

    #[test]
    fn raw_in_tiff_clothes_is_raw() {
        let tiff = |tags: &[(u16, u32)]| {
            let mut bytes = b"II*\0\x08\0\0\0".to_vec();
            bytes.extend((tags.len() as u16).to_le_bytes());
            for &(tag, value) in tags {
                bytes.extend(tag.to_le_bytes());
                bytes.extend([4, 0, 1, 0, 0, 0]);
                bytes.extend(value.to_le_bytes());
            }
            bytes.extend([0; 4]);
            bytes
        };
        assert_eq!(Format::sniff(&tiff(&[(0x100, 4), (0x101, 4)])), Some(Format::Tiff));
        assert_eq!(Format::sniff(&tiff(&[(0xFE, 1), (0x10F, 0), (0x14A, 0)])), Some(Format::Raw));
        assert_eq!(Format::sniff(&tiff(&[(0x100, 4), (0xC612, 1)])), Some(Format::Raw));
        assert_eq!(Format::sniff(b"II*\0\x10\0\0\0CR\x02\0"), Some(Format::Raw));
    }
}
