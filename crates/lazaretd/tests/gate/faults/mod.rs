//! What goes wrong around the gate: it is killed anywhere, disks are full, clocks jump, folders vanish, many things end at once.
//!
//! After each of these: nothing hangs, nothing has more rights than its policy, nothing is lost that was acknowledged, nothing is
//! left over. `docs/operations.md` has the table for people.

mod audited;
mod clock;
mod disk;
mod killed;
mod many;
mod points;
mod roles;
mod stage;
