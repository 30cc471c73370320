//! Real profiles.
