//! Filters from where the command line says: a live container or process, a file, a profile.

use crate::args::{ProfileHost, Source};
use crate::exit::{Exit, OrExit, Outcome, fail};
use crate::given::{self, Profile};
use crate::inspect::{self, Depth, Target, ThreadGroup};
use lazaret_core::filter::program::Program;
use lazaret_kernel::filters::Chain;

/// What was found there.
#[derive(Debug)]
pub enum Found {
    /// The threads of something that runs, by the filters they have.
    Live(Vec<ThreadGroup>),
    /// One filter.
    Filter(Program),
    /// What a runtime makes of a profile.
    Profile(Box<Profile>),
}

impl Source {
    /// Reads the filters.
    ///
    /// # Errors
    /// Exit 2 for a target that is not there or a bad file, 3 when the kernel does not show it.
    pub fn read(&self, host: &ProfileHost, depth: Depth) -> Outcome<Found> {
        let live = |target| inspect::chains(&target, depth).map(Found::Live);
        match (&self.container, self.pid, &self.bpf, &self.oci) {
            (Some(container), ..) => live(Target::Container(container.clone())),
            (_, Some(pid), ..) => live(Target::Process(pid)),
            (_, _, Some(file), _) => {
                let program = lazaret_text::filter::read(file).or_exit(Exit::Usage)?;
                Ok(Found::Filter(program))
            }
            (_, _, _, Some(file)) => {
                let profile = given::profile(file, host)?;
                given::tell(&profile.notes);
                profile.tell_without_table("are not judged");
                Ok(Found::Profile(Box::new(profile)))
            }
            // clap asks for one of them
            _ => fail(Exit::Usage, "no source of filters is named"),
        }
    }
}

/// Who these threads are, in words.
pub fn who(group: &ThreadGroup) -> String {
    let threads = match group.threads.len() {
        1 => "1 thread".to_string(),
        threads => format!("{threads} threads"),
    };
    let first = group.threads.first();
    let first = first.map_or(String::new(), |tid| format!(" (first {tid})"));
    // the name is the program's own, and may hold anything
    let comm: String = group.comm.chars().filter(|c| !c.is_control()).collect();
    format!("{threads} of `{comm}`{first}")
}

/// What holds these threads, in words.
pub fn state(group: &ThreadGroup) -> String {
    match &group.chain {
        Chain::Unfiltered => "no filter, every call is allowed".to_string(),
        Chain::Strict => "strict mode: only read, write, exit and rt_sigreturn".to_string(),
        Chain::Filters(programs) => filters(programs.len()),
    }
}

/// `1 filter`, `2 filters`.
pub fn filters(number: usize) -> String {
    match number {
        1 => "1 filter".to_string(),
        number => format!("{number} filters"),
    }
}
