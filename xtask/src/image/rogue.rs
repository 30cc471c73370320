//! Being written.
use std::path::Path;

use super::Image;
use crate::steps::Steps;

/// Being written.
///
/// # Errors
/// None yet.
pub fn rogue(
    _steps: &Steps,
    _workspace: &Path,
    _target: &Path,
    hapi: &Image,
) -> anyhow::Result<Image> {
    Ok(hapi.clone())
}
