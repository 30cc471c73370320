//! A permit: a signed statement that opens something for an image's containers for a while, with a reason.
//!
//! [`Permit`] is checked by its constructor, and by [`verify_permit`] when it comes from outside. Whether it holds now and for
//! this container are questions of their own ([`Permit::holds_at`], [`Permit::applies_to`]): the one who opens something asks
//! them, with its own clock.
//!
//! Deliberately not here: what is opened (`lazaret_core::policy`), revocation. Expiry is the only end of a permit that was copied.

#[cfg(test)]
mod tests;
mod wire;

use crate::dsse;
use crate::key::PrivateKey;
use crate::key::trusted::TrustedKeys;
use crate::signed::{SignedError, Verified, join, open};
use crate::statement::{self, StatementError};
use jiff::Timestamp;
use lazaret_core::digest::Digest;
use std::collections::BTreeSet;

pub use wire::PREDICATE_TYPE;

/// Largest envelope of a permit that is read, in bytes.
pub const PERMIT_LIMIT: usize = 64 * 1024;

/// Longest time for which a permit holds, in milliseconds: seven days.
pub const SPAN_LIMIT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Most characters of a reason.
pub const REASON_LIMIT: usize = 500;

/// Most digests that a permit is for; an image has an index, a manifest for each platform, and configurations.
pub const IMAGES_LIMIT: usize = 32;

/// What a permit opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A process may be put into the container (`docker exec`), where the policy would refuse that.
    Exec {
        /// The calls that it may make.
        calls: Calls,
    },
}

/// The calls that an exec under a permit may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Those of the policy's phase exec.
    Policy,
    /// Those that the policy neither denies nor has under its ceiling.
    Ceiling,
}

/// What a permit says, before it was checked. Times are milliseconds since the Unix epoch, whole seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Digests of the image whose containers it is for.
    pub images: BTreeSet<Digest>,
    /// What it opens.
    pub kind: Kind,
    /// Why; it is shown and recorded when the permit is used.
    pub reason: String,
    /// The first moment at which it holds.
    pub not_before_ms: u64,
    /// The first moment at which it holds no more.
    pub not_after_ms: u64,
    /// The only container that it is for, by its full id or its name.
    pub container: Option<String>,
    /// The only host that it is for, by its name.
    pub node: Option<String>,
}

/// Terms that passed every check in [`Permit::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit(Terms);

/// Terms that no permit can have. [`TermsError::check`] is the stable name of each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermsError {
    /// For no image, or for too many digests.
    #[error("it is for {found} image digests, wanted 1 to {IMAGES_LIMIT}")]
    Images {
        /// How many.
        found: usize,
    },
    /// An empty, long or unprintable reason.
    #[error(
        "its reason has to be 1 to {REASON_LIMIT} printable characters that are not all white space"
    )]
    Reason,
    /// A time that cannot be written as whole seconds of the years 1970 to 9999.
    #[error("its time {found_ms} ms since 1970 is not a whole second that can be written")]
    Time {
        /// The time.
        found_ms: u64,
    },
    /// It ends before it begins, or at once.
    #[error("it ends at {not_after}, not after it begins, {not_before}")]
    Order {
        /// Its beginning.
        not_before: String,
        /// Its end.
        not_after: String,
    },
    /// It holds too long.
    #[error("it holds for {found_s} s, at most {} s (7 days) are allowed", SPAN_LIMIT_MS / 1000)]
    TooLong {
        /// How long, in seconds.
        found_s: u64,
    },
    /// No name or id of a container.
    #[error(
        "its container has to be 1 to 128 of the characters a-z A-Z 0-9 _ . -, the first a letter or digit"
    )]
    Container,
    /// No name of a host.
    #[error(
        "its node has to be 1 to 253 of the characters a-z A-Z 0-9 . -, the first a letter or digit"
    )]
    Node,
}

impl TermsError {
    /// Short name of the check that failed. Stable.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            TermsError::Images { .. } => "images",
            TermsError::Reason => "reason",
            TermsError::Time { .. } => "time",
            TermsError::Order { .. } => "time-order",
            TermsError::TooLong { .. } => "too-long",
            TermsError::Container => "container-name",
            TermsError::Node => "node-name",
        }
    }
}

/// Why a permit opens nothing. [`PermitError::check`] is the stable name of each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PermitError {
    /// Over the bound; nothing was parsed.
    #[error("permit has {found} bytes, at most {PERMIT_LIMIT} are read")]
    TooLarge {
        /// Its size in bytes.
        found: usize,
    },
    /// Not signed, or another statement.
    #[error("permit refused")]
    Signed(#[from] SignedError),
    /// Not the fields of a permit, or others besides.
    #[error("permit is not of the form that is known")]
    Format(#[source] serde_json::Error),
    /// A kind of a later version.
    #[error("permit is of kind `{found}`, known is `exec`")]
    Kind {
        /// Its kind, cut to 40 characters.
        found: String,
    },
    /// A time in another form.
    #[error(
        "permit has `{found}` as a time, wanted UTC and whole seconds as in `2026-01-31T08:00:00Z`"
    )]
    Time {
        /// The text, cut to 40 characters.
        found: String,
    },
    /// Terms that no permit can have.
    #[error("permit refused")]
    Terms(#[from] TermsError),
    /// For the containers of another image.
    #[error(
        "permit is for {}, the container runs {}",
        join(permit),
        join(container)
    )]
    Image {
        /// The images that it is for.
        permit: BTreeSet<Digest>,
        /// The digests of the image at hand.
        container: BTreeSet<Digest>,
    },
    /// It does not hold yet.
    #[error("permit holds from {not_before}, now it is {now}")]
    NotYet {
        /// Its beginning.
        not_before: String,
        /// The caller's clock.
        now: String,
    },
    /// It holds no more.
    #[error("permit held until {not_after}, now it is {now}")]
    Expired {
        /// Its end.
        not_after: String,
        /// The caller's clock.
        now: String,
    },
    /// For another container.
    #[error("permit is for container `{permit}`")]
    Container {
        /// The one that it is for.
        permit: String,
    },
    /// For another host.
    #[error("permit is for node `{permit}`")]
    Node {
        /// The one that it is for.
        permit: String,
    },
}

impl PermitError {
    /// Every name that [`PermitError::check`] gives.
    pub const CHECKS: [&'static str; 20] = [
        "permit-size",
        "permit-format",
        "signature",
        "payload-type",
        "statement-format",
        "statement-type",
        "predicate-type",
        "fields",
        "kind",
        "images",
        "reason",
        "time",
        "time-order",
        "too-long",
        "container-name",
        "node-name",
        "image",
        "not-yet",
        "expired",
        "scope",
    ];

    /// Short name of the check that failed. Stable: it stands in events and reports.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            PermitError::TooLarge { .. } => "permit-size",
            PermitError::Signed(SignedError::Envelope(_)) => "permit-format",
            PermitError::Signed(error) => error.check(),
            PermitError::Format(_) => "fields",
            PermitError::Kind { .. } => "kind",
            PermitError::Time { .. } => "time",
            PermitError::Terms(error) => error.check(),
            PermitError::Image { .. } => "image",
            PermitError::NotYet { .. } => "not-yet",
            PermitError::Expired { .. } => "expired",
            PermitError::Container { .. } | PermitError::Node { .. } => "scope",
        }
    }
}

impl Permit {
    /// Checks terms.
    ///
    /// # Errors
    /// [`TermsError`], the first that is wrong.
    pub fn new(terms: Terms) -> Result<Permit, TermsError> {
        let found = terms.images.len();
        if !(1..=IMAGES_LIMIT).contains(&found) {
            return Err(TermsError::Images { found });
        }
        let characters = terms.reason.chars().count();
        if !(1..=REASON_LIMIT).contains(&characters)
            || terms.reason.trim().is_empty()
            || !terms.reason.chars().all(printable)
        {
            return Err(TermsError::Reason);
        }
        for time in [terms.not_before_ms, terms.not_after_ms] {
            if time % 1000 != 0 || timestamp(time).is_none() {
                return Err(TermsError::Time { found_ms: time });
            }
        }
        match terms.not_after_ms.checked_sub(terms.not_before_ms) {
            None | Some(0) => {
                return Err(TermsError::Order {
                    not_before: utc(terms.not_before_ms),
                    not_after: utc(terms.not_after_ms),
                });
            }
            Some(span) if span > SPAN_LIMIT_MS => {
                return Err(TermsError::TooLong {
                    found_s: span / 1000,
                });
            }
            Some(_) => {}
        }
        let named = |text: &Option<String>, limit, more: &[char]| {
            text.as_deref().is_none_or(|text| {
                let good = |c: char| c.is_ascii_alphanumeric() || more.contains(&c);
                (1..=limit).contains(&text.len())
                    && text.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && text.chars().all(good)
            })
        };
        if !named(&terms.container, 128, &['_', '.', '-']) {
            return Err(TermsError::Container);
        }
        if !named(&terms.node, 253, &['.', '-']) {
            return Err(TermsError::Node);
        }
        Ok(Permit(terms))
    }

    /// What it says.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.0
    }

    /// Whether it holds at this moment, in milliseconds since the Unix epoch: from its beginning until just before its end.
    ///
    /// # Errors
    /// [`PermitError::NotYet`], [`PermitError::Expired`].
    pub fn holds_at(&self, unix_ms: u64) -> Result<(), PermitError> {
        if unix_ms < self.0.not_before_ms {
            return Err(PermitError::NotYet {
                not_before: utc(self.0.not_before_ms),
                now: utc(unix_ms),
            });
        }
        if unix_ms >= self.0.not_after_ms {
            return Err(PermitError::Expired {
                not_after: utc(self.0.not_after_ms),
                now: utc(unix_ms),
            });
        }
        Ok(())
    }

    /// Whether it is for this container, by its full id or its name, on this host. That its image is the container's is
    /// [`verify_permit`]'s to say.
    ///
    /// # Errors
    /// [`PermitError::Container`], [`PermitError::Node`].
    pub fn applies_to(&self, id: &str, name: &str, node: &str) -> Result<(), PermitError> {
        if let Some(permit) = &self.0.container
            && permit != id
            && permit != name
        {
            return Err(PermitError::Container {
                permit: permit.clone(),
            });
        }
        match &self.0.node {
            Some(permit) if permit != node => Err(PermitError::Node {
                permit: permit.clone(),
            }),
            _ => Ok(()),
        }
    }
}

/// Nothing that moves a cursor, ends a line or turns the writing direction round (Unicode 16, bidirectional controls).
fn printable(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn timestamp(unix_ms: u64) -> Option<Timestamp> {
    // the last one that jiff has is in the year 9999 (`Timestamp::MAX`)
    Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()
}

/// A moment in milliseconds since the Unix epoch as RFC 3339 in UTC; the number where it is beyond the year 9999.
#[must_use]
pub fn utc(unix_ms: u64) -> String {
    timestamp(unix_ms).map_or_else(|| format!("{unix_ms} ms"), |time| time.to_string())
}

/// A moment as [`utc`] writes whole seconds, in milliseconds since the Unix epoch; nothing else is read, so that each moment has
/// one spelling.
#[must_use]
pub fn from_utc(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    let unix_ms = u64::try_from(time.as_millisecond()).ok()?;
    (unix_ms.is_multiple_of(1000) && utc(unix_ms) == text).then_some(unix_ms)
}

/// Checks a permit for the image of the container at hand.
///
/// # Flow
/// Size → envelope → signature → payload type → statement → its types → fields → kind → times → terms → one of the image's
/// digests is among its subjects.
///
/// # Guarantees
/// Nothing but the envelope is parsed before a pinned key's signature over its payload was checked.
///
/// # Assumptions
/// As for [`verify`](crate::verify()): every digest in `image` names the image that runs.
///
/// # Caveats
/// Neither time, container nor node is asked here: [`Permit::holds_at`], [`Permit::applies_to`].
///
/// # Errors
/// [`PermitError`], the first check that failed.
pub fn verify_permit(
    envelope: &[u8],
    keys: &TrustedKeys,
    image: &BTreeSet<Digest>,
) -> Result<Verified<Permit>, PermitError> {
    let permit = verify_permit_for_any_image(envelope, keys)?;
    let images = &permit.terms().images;
    if images.is_disjoint(image) {
        return Err(PermitError::Image {
            permit: images.clone(),
            container: image.clone(),
        });
    }
    Ok(permit)
}

/// Checks a permit when no container is at hand: to install or to show it.
///
/// # Errors
/// [`PermitError`], any but [`PermitError::Image`] and those of time and scope.
pub fn verify_permit_for_any_image(
    envelope: &[u8],
    keys: &TrustedKeys,
) -> Result<Verified<Permit>, PermitError> {
    if envelope.len() > PERMIT_LIMIT {
        return Err(PermitError::TooLarge {
            found: envelope.len(),
        });
    }
    open(envelope, keys, PREDICATE_TYPE, wire::read)
}

/// Why a permit was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignPermitError {
    /// No statement can be made.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// No envelope can be made.
    #[error(transparent)]
    Envelope(#[from] dsse::SignError),
}

/// Signs a permit with each of the keys: the bytes that [`verify_permit`] reads. Same permit and keys, same bytes.
///
/// # Errors
/// [`SignPermitError`].
pub fn sign_permit(permit: &Permit, keys: &[&PrivateKey]) -> Result<Vec<u8>, SignPermitError> {
    let predicate = wire::predicate(permit)?;
    let statement = statement::about(&permit.terms().images, PREDICATE_TYPE, &predicate)?;
    Ok(dsse::sign(dsse::PAYLOAD_TYPE, &statement, keys)?)
}
