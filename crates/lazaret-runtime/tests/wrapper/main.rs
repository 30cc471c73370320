//! The wrapper's contract (T1): what it hands on, whom it confines, what it says to the gate.

mod confines;
mod host;
mod passes_through;
mod stops;
