//! What was typed for `lazaret key`, `sign`, `verify`, `bundle` and `permit`.

use crate::trust::{duration_s, time};
use clap::{Args, Subcommand, ValueEnum};
use lazaret_core::digest::Digest;
use std::path::PathBuf;

/// `lazaret key`
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Make a key pair: FILE (mode 0600) and FILE.pub.
    Generate {
        /// The private key; never overwritten.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        /// The algorithm.
        #[arg(long, value_enum, default_value_t = Algorithm::EcdsaP256)]
        algorithm: Algorithm,
    },
    /// Print the public half and its id.
    Public {
        /// The private key.
        file: PathBuf,
    },
}

/// Signature algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Algorithm {
    /// ECDSA over P-256 with SHA-256, as cosign uses it.
    EcdsaP256,
    /// Ed25519.
    Ed25519,
}

/// `lazaret sign`
#[derive(Debug, Args)]
pub struct Sign {
    /// The policy text.
    pub file: PathBuf,
    /// The private key.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The bundle.
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
}

/// `lazaret verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// The bundle.
    pub bundle: PathBuf,
    /// Directory of pinned public keys (`*.pem`, `*.pub`).
    #[arg(long, value_name = "DIR")]
    pub keys: PathBuf,
    /// A digest of the image that is to start, `sha256:…`; may be given many times.
    #[arg(long = "image-digest", value_name = "DIGEST", required = true)]
    pub digests: Vec<Digest>,
}

/// `lazaret bundle`
#[derive(Debug, Subcommand)]
pub enum BundleVerb {
    /// Verify a bundle and put it, with the compiled profile, into this node's store.
    ///
    /// Revisions stand side by side: a container keeps the one that it started under, the next one gets the highest.
    ///
    /// Exit codes: 0 installed, 1 its revision is another policy's already, 2 no bundle, 3 the store cannot be written, 4 it does
    /// not verify.
    Install {
        /// The bundle.
        bundle: PathBuf,
        /// The node's store.
        #[command(flatten)]
        store: StoreArgs,
        /// The gate's socket that the profile names.
        #[arg(long, value_name = "SOCKET", default_value = "/run/lazaret/gate.sock")]
        listener: PathBuf,
    },
    /// The revisions in this node's store, with the key that signed each, or why it does not verify.
    ///
    /// Exit codes: 0 all verify, 1 nothing is installed, 3 the store cannot be read, 4 one does not verify.
    List {
        /// Only those of this image, `sha256:…`.
        #[arg(value_name = "IMAGE-DIGEST")]
        image: Option<Digest>,
        /// The node's store.
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Take a revision out of this node's store.
    ///
    /// Containers that run under it are not started again from it. An image without any revision is still refused at its start,
    /// until its directory is removed by hand.
    ///
    /// Exit codes: 0 removed, 1 it is not installed, 3 the store cannot be written.
    Remove {
        /// A digest of the image, `sha256:…`; the revision goes for all of the image's digests.
        #[arg(value_name = "IMAGE-DIGEST")]
        image: Digest,
        /// The revision.
        #[arg(long, value_name = "N")]
        revision: u64,
        /// The node's store.
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// Where the node's store is.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// The node's store; its `keys` directory holds the pinned keys.
    #[arg(long, value_name = "DIR", default_value = "/etc/lazaret")]
    pub store: PathBuf,
}

/// `lazaret permit`
#[derive(Debug, Subcommand)]
pub enum PermitVerb {
    /// Sign a permit: it opens an exec of an image's containers for at most seven days, with a reason.
    ///
    /// Exit codes: 0 signed, 2 terms that no permit can have, 3 the output cannot be written, 4 no usable key.
    Sign(PermitSign),
    /// Verify a permit against pinned keys, an image's digests and the clock.
    ///
    /// Exit codes: 0 it holds, 1 not yet or no more, 2 no such file, 4 it does not verify.
    Verify {
        /// The permit.
        permit: PathBuf,
        /// Directory of pinned public keys (`*.pem`).
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
        /// A digest of the container's image, `sha256:…`; may be given many times.
        #[arg(long = "image-digest", value_name = "DIGEST", required = true)]
        digests: Vec<Digest>,
        /// The moment to ask for, in UTC as 2026-01-31T08:00:00Z [default: now].
        #[arg(long, value_name = "TIME", value_parser = time)]
        at: Option<u64>,
    },
    /// Verify a permit and put it into this node's store.
    ///
    /// Exit codes: 0 installed, 1 it has expired, 2 no such file, 3 the store cannot be written, 4 it does not verify.
    Install {
        /// The permit.
        permit: PathBuf,
        /// The node's store.
        #[command(flatten)]
        store: StoreArgs,
    },
    /// The permits in this node's store, and whether each holds now.
    ///
    /// Exit codes: 0 all verify, 1 none is installed, 3 the store cannot be read, 4 one does not verify.
    List {
        /// The node's store.
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Take a permit out of this node's store; what runs under it is not ended.
    ///
    /// Exit codes: 0 removed, 1 it is not installed, 3 the store cannot be written.
    Remove {
        /// The permit's digest, as `list` shows it.
        digest: Digest,
        /// The node's store.
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Take the permits that have expired out of this node's store.
    ///
    /// Exit codes: 0 done, 3 the store cannot be written, 4 no usable pinned key.
    Clean {
        /// The node's store.
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// `lazaret permit sign`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("image").required(true).multiple(true).args(["digests", "policy"]))]
pub struct PermitSign {
    /// The private key.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// A digest of the image whose containers it is for, `sha256:…`; may be given many times.
    #[arg(long = "image-digest", value_name = "DIGEST")]
    pub digests: Vec<Digest>,
    /// A policy text: the permit is for its image.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Why; shown and recorded whenever the permit is used. At most 500 characters on one line.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// How long it holds, as 90m, 2h or 7d; at most seven days.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration_s)]
    pub duration_s: u64,
    /// When it begins, in UTC as 2026-01-31T08:00:00Z [default: now].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<u64>,
    /// The calls that the exec may make.
    #[arg(long, value_enum, default_value_t = PermitCalls::Policy)]
    pub calls: PermitCalls,
    /// Only for this container, by its full id or its name.
    #[arg(long, value_name = "CONTAINER")]
    pub container: Option<String>,
    /// Only on this host, by its name.
    #[arg(long, value_name = "HOST")]
    pub node: Option<String>,
    /// The permit.
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
}

/// The calls that an exec under a permit may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PermitCalls {
    /// Those of the policy's phase exec.
    Policy,
    /// Those that the policy neither denies nor has under its ceiling.
    Ceiling,
}
