//! The image tower on candle's tensors, whatever it consists of.

use candle_core::{Device, Result as TensorResult, Tensor};

use super::config::{ImageConfig, Stem, VitConfig};
use super::encoder::PixelBatch;
use super::linear::tensor_error;
use super::loader::Loader;
use super::project::Depth;
use super::trunk::TrunkTower;
use super::vision::Vision;
use crate::Result;
use crate::image::Preprocess;
use crate::image::patches::Patches;

/// Pictures per pass: enough rows for the products to run at full speed, little enough memory for a laptop. Other devices have
/// more units to fill.
const BATCH: usize = 16;
const DEVICE_BATCH: usize = 128;

/// An image tower.
#[derive(Debug)]
pub(super) struct ImageTower {
    device: Device,
    /// Value of each byte in each channel, normalised.
    levels: [[f32; 256]; 3],
    /// Edge of the patches of pictures that keep their shape, and most of them.
    loose: Option<(usize, usize)>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Vision(Box<Vision>),
    Trunk(Box<TrunkTower>),
}

impl ImageTower {
    /// Reads the tower.
    pub(super) fn load(loader: &Loader, config: &ImageConfig, preprocess: &Preprocess, dim: usize) -> Result<Self> {
        let levels = std::array::from_fn(|c| {
            std::array::from_fn(|byte| (byte as f32 / 255.0 - preprocess.mean[c]) / preprocess.std[c])
        });
        let vision = |config: &VitConfig| Vision::load(loader, config, dim).map(|v| Kind::Vision(Box::new(v)));
        let kind = match config {
            ImageConfig::Plain(config) => vision(&VitConfig::plain(config))?,
            ImageConfig::Vit(config) => vision(config)?,
            ImageConfig::Trunk(config) => Kind::Trunk(Box::new(TrunkTower::load(loader, config, dim)?)),
        };
        let loose = match config {
            ImageConfig::Vit(VitConfig { stem: Stem::Loose { edge, most, .. }, .. }) => Some((*edge, *most)),
            _ => None,
        };
        Ok(Self { device: loader.device().clone(), levels, loose, kind })
    }

    /// One row per picture, not normalised: embeddings, or what the last map of a vision transformer is applied to.
    pub(super) fn encode(&self, pictures: &PixelBatch, depth: Depth) -> Result<Vec<f32>> {
        let (height, width) = pictures.size();
        let mut rows = Vec::new();
        if let Some((edge, most)) = self.loose {
            for picture in pictures.as_bytes().chunks(height * width * 3) {
                let patches = Patches::read_or_refuse(picture, edge, most)?;
                let embedded = self.forward_loose(&patches, depth).and_then(|t| t.flatten_all()?.to_vec1::<f32>());
                rows.extend(embedded.map_err(tensor_error)?);
            }
            return Ok(rows);
        }
        let batch = if self.device.is_cpu() { BATCH } else { DEVICE_BATCH };
        for chunk in pictures.as_bytes().chunks(batch * height * width * 3) {
            let embedded = self.forward(chunk, height, width, depth).and_then(|t| t.flatten_all()?.to_vec1::<f32>());
            rows.extend(embedded.map_err(tensor_error)?);
        }
        Ok(rows)
    }

    /// The patches of one picture.
    fn forward_loose(&self, Patches { grid, bytes }: &Patches, depth: Depth) -> TensorResult<Tensor> {
        let values = bytes.iter().enumerate().map(|(i, &byte)| self.levels[i % 3][usize::from(byte)]);
        let count = grid.0 * grid.1;
        let x = Tensor::from_vec(values.collect::<Vec<f32>>(), (1, count, bytes.len() / count), &self.device)?;
        match &self.kind {
            Kind::Vision(vision) => vision.forward_loose(&x, *grid, depth),
            Kind::Trunk(_) => candle_core::bail!("convolutions have one grid"),
        }
    }

    fn forward(&self, bytes: &[u8], height: usize, width: usize, depth: Depth) -> TensorResult<Tensor> {
        let picture = height * width * 3;
        let batch = bytes.len() / picture;
        let mut values = Vec::with_capacity(bytes.len());
        for picture in bytes.chunks_exact(picture) {
            for (channel, levels) in self.levels.iter().enumerate() {
                values.extend(picture[channel..].iter().step_by(3).map(|&byte| levels[usize::from(byte)]));
            }
        }
        let x = Tensor::from_vec(values, (batch, 3, height, width), &self.device)?;
        match &self.kind {
            Kind::Vision(vision) => vision.forward(&x, depth),
            Kind::Trunk(trunk) => trunk.forward(&x),
        }
    }
}
