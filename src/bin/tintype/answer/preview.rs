//! The answer as pictures in the terminal.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use image::{DynamicImage, RgbImage};
use rasteroid::term_misc::{EnvIdentifiers, Wininfo};
use rasteroid::{Encoder, RasterEncoder};
use tintype::Engine;

use super::{Answer, table, thumbnail};
use crate::output::Talk;

/// A line of the table, then the picture below it, hit by hit. Kitty, iTerm2 and Sixel where the terminal says that it speaks
/// them, half blocks elsewhere. Into a pipe only the lines go.
pub(super) fn show(answer: &Answer, engine: &Engine, rows: u16, talk: &Talk) -> anyhow::Result<()> {
    let mut out = io::stdout();
    if !out.is_terminal() {
        talk.line("--preview needs a terminal; here are the paths");
        return Ok(table::write_fields(&mut out.lock(), answer)?);
    }
    let terminal = EnvIdentifiers::new();
    let window = Wininfo::new(None, None, None, None, &terminal).context("the terminal does not say its size")?;
    let protocol = RasterEncoder::auto_detect(&terminal);
    let (columns, rows) = (u32::from(window.sc_width.max(1)), u32::from(rows.clamp(1, window.sc_height.max(2) - 1)));
    let (width, height) = match protocol {
        // A cell is two pixels, one above the other.
        RasterEncoder::Ascii => (columns.saturating_sub(1).max(1), rows * 2),
        _ => (window.spx_width.into(), rows * u32::from(window.spx_height) / u32::from(window.sc_height.max(1))),
    };
    for hit in &answer.hits {
        table::write(&mut out, std::slice::from_ref(hit), answer.scored, talk.answer)?;
        match thumbnail::thumbnail(engine, hit.record.key, width.max(1), height.max(1)) {
            Ok(picture) => {
                let picture = RgbImage::from_raw(picture.width, picture.height, picture.rgb)
                    .context("a thumbnail of another size than it says")?;
                // Into memory first: a picture reaches the terminal whole or not at all.
                let mut drawn = Vec::new();
                protocol
                    .encode_image(&DynamicImage::ImageRgb8(picture), &mut drawn, &window, None, None)
                    .context("the picture cannot be drawn")?;
                out.write_all(&drawn)?;
                writeln!(out)?;
            }
            Err(error) => talk.say(talk.palette.dim(format_args!("no preview: {error:#}"))),
        }
        out.flush()?;
    }
    Ok(())
}
