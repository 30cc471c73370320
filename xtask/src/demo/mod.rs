//! Being written.

use crate::setup::Setup;

/// Being written.
///
/// # Errors
/// None yet.
pub fn run(_setup: &Setup) -> anyhow::Result<()> {
    Ok(())
}
