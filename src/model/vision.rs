//! The image tower: a vision transformer over square or oblong patches.

use candle_core::{Device, IndexOp as _, Result as TensorResult, Tensor};

use super::config::{ImagePool, VisionConfig};
use super::encoder::PixelBatch;
use super::linear::{Linear, Loader, Norm, tensor_error};
use super::transformer::Transformer;
use crate::Result;
use crate::image::Preprocess;

/// Pictures per pass: enough rows for the products to run at full speed, little enough memory for a laptop.
const BATCH: usize = 16;

/// A vision transformer and its projection.
#[derive(Debug)]
pub(super) struct Vision {
    config: VisionConfig,
    device: Device,
    /// Value of each byte in each channel, normalised.
    levels: [[f32; 256]; 3],
    patch: Linear,
    class: Tensor,
    position: Tensor,
    norm_pre: Option<Norm>,
    transformer: Transformer,
    norm_post: Norm,
    projection: Linear,
}

impl Vision {
    /// Reads the tower.
    pub(super) fn load(loader: &Loader, config: &VisionConfig, preprocess: &Preprocess) -> Result<Self> {
        let eps = config.transformer.norm_eps;
        let width = config.transformer.width;
        let levels = std::array::from_fn(|c| {
            std::array::from_fn(|byte| (byte as f32 / 255.0 - preprocess.mean[c]) / preprocess.std[c])
        });
        let class = loader.tensor("image.class")?;
        Ok(Self {
            config: config.clone(),
            device: loader.device.clone(),
            levels,
            patch: loader.linear("image.patch", 0, 1.0)?,
            class: class.reshape((1, 1, width)).map_err(tensor_error)?,
            position: loader.tensor("image.position")?,
            norm_pre: if config.norm_pre { Some(loader.norm("image.norm_pre", eps)?) } else { None },
            transformer: Transformer::load(loader, "image", &config.transformer)?,
            norm_post: loader.norm("image.norm_post", eps)?,
            projection: loader.linear("image.projection", 0, 1.0)?,
        })
    }

    /// One row per picture, not normalised.
    pub(super) fn encode(&self, pictures: &PixelBatch) -> Result<Vec<f32>> {
        let (height, width) = pictures.size();
        let mut rows = Vec::new();
        for chunk in pictures.as_bytes().chunks(BATCH * height * width * 3) {
            let embedded = self.forward(chunk, height * width * 3).and_then(|t| t.flatten_all()?.to_vec1::<f32>());
            rows.extend(embedded.map_err(tensor_error)?);
        }
        Ok(rows)
    }

    fn forward(&self, bytes: &[u8], picture: usize) -> TensorResult<Tensor> {
        let batch = bytes.len() / picture;
        let (rows, columns) = self.config.grid();
        let (tokens, width) = (rows * columns, self.config.transformer.width);
        let values = 3 * self.config.patch.0 * self.config.patch.1;
        let patches = self.patches(bytes, picture);
        let x = Tensor::from_vec(patches, (batch * tokens, values), &self.device)?; // (batch · patches, 3 · patch²)
        let x = self.patch.forward(&x)?.reshape((batch, tokens, width))?; // (batch, patches, width)
        let x = Tensor::cat(&[&self.class.expand((batch, 1, width))?, &x], 1)?; // (batch, tokens, width)
        let mut x = x.broadcast_add(&self.position)?;
        if let Some(norm) = &self.norm_pre {
            x = norm.forward(&x)?;
        }
        let pooled = match self.config.pool {
            ImagePool::Token => {
                let x = self.transformer.forward_picked(x, false, &vec![0; batch])?; // (batch, width)
                self.norm_post.forward(&x)?
            }
            ImagePool::Average => {
                let x = self.transformer.forward(x, false)?; // (batch, tokens, width)
                if self.config.norm_after_pool {
                    self.norm_post.forward(&x.i((.., 1.., ..))?.mean(1)?)?
                } else {
                    self.norm_post.forward(&x)?.i((.., 1.., ..))?.mean(1)?
                }
            }
        };
        self.projection.forward(&pooled) // (batch, dim)
    }

    /// Each patch as one row, channel by channel, each row by row: the order of a convolution's weights, which makes the
    /// patch embedding a plain product.
    fn patches(&self, bytes: &[u8], picture: usize) -> Vec<f32> {
        let (height, width) = self.config.patch;
        let (rows, columns) = self.config.grid();
        let stride = self.config.image.1 * 3;
        let mut out = Vec::with_capacity(bytes.len());
        for picture in bytes.chunks_exact(picture) {
            for row in 0..rows {
                for column in 0..columns {
                    for (channel, levels) in self.levels.iter().enumerate() {
                        for y in row * height..(row + 1) * height {
                            let line = &picture[y * stride + column * width * 3..][..width * 3];
                            out.extend(line[channel..].iter().step_by(3).map(|&byte| levels[byte as usize]));
                        }
                    }
                }
            }
        }
        out
    }
}
