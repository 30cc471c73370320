//! The verbs that talk to the gate, against a gate that plays a scenario on a Unix socket: what it answers, what it answers
//! wrongly, and a real terminal. Needs nothing but a temporary directory.

mod fake;
mod pty;
mod suggest;
mod table;
mod verbs;
