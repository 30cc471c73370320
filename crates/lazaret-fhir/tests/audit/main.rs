//! Events of the gate as `AuditEvent`: valid against the official definitions, and without anything that must not leave.

mod leave;
mod real;
mod samples;
mod schema;
