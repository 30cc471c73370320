//! The export as a whole, against a fake FHIR server: nothing lost, nothing twice under another id, bounded disk.

mod fake;
mod life;
mod real;
mod stage;
mod wire;
