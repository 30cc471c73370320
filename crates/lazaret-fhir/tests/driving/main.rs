//! The exercise, the load and the wait against a server in this process that behaves or misbehaves as the scenario says.

mod exercise;
mod fake;
mod load;
mod ready;

use std::time::Duration;

const SOON: Duration = Duration::from_millis(300);
const AMPLE: Duration = Duration::from_secs(60);
