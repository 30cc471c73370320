//! `lazaret_filter::oci::meaning` held against the real library: for every profile, both sides of everything that the filter
//! compares.

mod calls;
mod random;
mod real;
mod tables;
