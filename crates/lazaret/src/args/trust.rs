//! What was typed for `lazaret key`, `sign`, `verify` and `bundle`.

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
