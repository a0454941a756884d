//! The first directory of a TIFF file, as far as telling raw files from pictures and patching a tag need it.
//!
//! The `tiff` crate decodes pixels and `kamadak-exif` reads EXIF; neither works on the first kilobyte of a file.

/// The first image file directory of a classic (32-bit) TIFF.
pub(crate) struct Ifd<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    /// Offset of the first entry.
    start: usize,
    count: usize,
}

/// One directory entry of twelve bytes.
pub(crate) struct Entry<'a> {
    raw: &'a [u8; 12],
    big_endian: bool,
    /// Offset of the entry in the file.
    pub(crate) offset: usize,
}

impl<'a> Ifd<'a> {
    /// Finds the first directory; none when the bytes are no classic TIFF or end before it.
    pub(crate) fn first(bytes: &'a [u8]) -> Option<Ifd<'a>> {
        let big_endian = match bytes.get(..4)? {
            b"II*\0" => false,
            b"MM\0*" => true,
            _ => return None,
        };
        let start = uint(bytes.get(4..8)?, big_endian) as usize;
        let count = uint(bytes.get(start..start.checked_add(2)?)?, big_endian) as usize;
        Some(Ifd { bytes, big_endian, start: start + 2, count })
    }

    /// The entry of a tag, if it lies within the bytes at hand.
    pub(crate) fn find(&self, tag: u16) -> Option<Entry<'a>> {
        (0..self.count).map_while(|i| self.entry(i)).find(|entry| entry.tag() == tag)
    }

    fn entry(&self, i: usize) -> Option<Entry<'a>> {
        let offset = self.start.checked_add(i * 12)?;
        let raw = self.bytes.get(offset..)?.first_chunk::<12>()?;
        Some(Entry { raw, big_endian: self.big_endian, offset })
    }
}

impl Entry<'_> {
    fn tag(&self) -> u16 {
        uint(&self.raw[..2], self.big_endian) as u16
    }

    /// The value of a single BYTE, SHORT or LONG, which is kept in the entry itself.
    pub(crate) fn inline_uint(&self) -> u32 {
        match uint(&self.raw[2..4], self.big_endian) {
            1 => u32::from(self.raw[8]),
            3 => uint(&self.raw[8..10], self.big_endian),
            _ => uint(&self.raw[8..12], self.big_endian),
        }
    }

    /// Bytes that, written into the value field, make it `value` in the entry's own type.
    pub(crate) fn encode_uint(&self, value: u8) -> [u8; 4] {
        let width = if uint(&self.raw[2..4], self.big_endian) == 4 { 4 } else { 2 };
        let mut field = [0; 4];
        field[if self.big_endian { width - 1 } else { 0 }] = value;
        field
    }
}

fn uint(bytes: &[u8], big_endian: bool) -> u32 {
    let fold = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
    if big_endian { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) }
}
