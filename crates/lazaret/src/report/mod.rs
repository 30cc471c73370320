//! The report: `report.json` for machines, one HTML page for people.
//!
//! Pure: figures come in as [`data::Report`], text goes out. Nothing here measures, opens a file or knows where the
//! figures came from; [`crate::bench`] measures. A figure that nobody measured is absent, and absent is written
//! "not measured", never as zero.

pub mod assemble;
mod coverage;
pub mod data;
pub mod html;
mod plot;
mod text;
pub mod verdict;

pub use data::Report;
