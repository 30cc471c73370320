//! Vocabularies of opening, locating and holding files. Values are those of the headers in the comments; a test compares them.

use super::Names;

/// `include/uapi/asm-generic/fcntl.h`. `O_DIRECT`, `O_DIRECTORY`, `O_NOFOLLOW`, `O_LARGEFILE` and with them `O_TMPFILE` have
/// other values on `aarch64` than on `x86_64`, so they have no name here.
pub(super) const OPEN: Names = &[
    ("O_RDONLY", 0),
    ("O_WRONLY", 1),
    ("O_RDWR", 2),
    ("O_CREAT", 64),
    ("O_EXCL", 128),
    ("O_NOCTTY", 0x100),
    ("O_TRUNC", 0x200),
    ("O_APPEND", 0x400),
    ("O_NONBLOCK", 0x800),
    ("O_DSYNC", 0x1000),
    ("FASYNC", 0x2000),
    ("O_NOATIME", 0x4_0000),
    ("O_CLOEXEC", 0x8_0000),
    ("O_SYNC", 0x10_1000),
    ("O_PATH", 0x20_0000),
];

/// Flags of calls that make descriptors, `include/uapi/asm-generic/fcntl.h`.
pub(super) const DESCRIPTOR: Names = &[("O_NONBLOCK", 0x800), ("O_CLOEXEC", 0x8_0000)];

/// `include/uapi/linux/fcntl.h`. `AT_EACCESS` is `faccessat2`'s alone, `AT_REMOVEDIR` `unlinkat`'s.
pub(super) const AT: Names = &[
    ("AT_SYMLINK_NOFOLLOW", 0x100),
    ("AT_EACCESS", 0x200),
    ("AT_REMOVEDIR", 0x200),
    ("AT_SYMLINK_FOLLOW", 0x400),
    ("AT_NO_AUTOMOUNT", 0x800),
    ("AT_EMPTY_PATH", 0x1000),
    ("AT_STATX_FORCE_SYNC", 0x2000),
    ("AT_STATX_DONT_SYNC", 0x4000),
    ("AT_RECURSIVE", 0x8000),
];

/// `include/uapi/asm-generic/fcntl.h` and `include/uapi/linux/fcntl.h`.
pub(super) const FCNTL: Names = &[
    ("F_DUPFD", 0),
    ("F_GETFD", 1),
    ("F_SETFD", 2),
    ("F_GETFL", 3),
    ("F_SETFL", 4),
    ("F_GETLK", 5),
    ("F_SETLK", 6),
    ("F_SETLKW", 7),
    ("F_SETOWN", 8),
    ("F_GETOWN", 9),
    ("F_SETSIG", 10),
    ("F_GETSIG", 11),
    ("F_SETOWN_EX", 15),
    ("F_GETOWN_EX", 16),
    ("F_GETOWNER_UIDS", 17),
    ("F_OFD_GETLK", 36),
    ("F_OFD_SETLK", 37),
    ("F_OFD_SETLKW", 38),
    ("F_SETLEASE", 1024),
    ("F_GETLEASE", 1025),
    ("F_NOTIFY", 1026),
    ("F_DUPFD_QUERY", 1027),
    ("F_CREATED_QUERY", 1028),
    ("F_CANCELLK", 1029),
    ("F_DUPFD_CLOEXEC", 1030),
    ("F_SETPIPE_SZ", 1031),
    ("F_GETPIPE_SZ", 1032),
    ("F_ADD_SEALS", 1033),
    ("F_GET_SEALS", 1034),
    ("F_GET_RW_HINT", 1035),
    ("F_SET_RW_HINT", 1036),
    ("F_GET_FILE_RW_HINT", 1037),
    ("F_SET_FILE_RW_HINT", 1038),
];

/// `include/uapi/asm-generic/fcntl.h`.
pub(super) const FLOCK: Names = &[
    ("LOCK_SH", 1),
    ("LOCK_EX", 2),
    ("LOCK_NB", 4),
    ("LOCK_UN", 8),
];

/// `include/uapi/linux/fs.h`.
pub(super) const SEEK: Names = &[
    ("SEEK_SET", 0),
    ("SEEK_CUR", 1),
    ("SEEK_END", 2),
    ("SEEK_DATA", 3),
    ("SEEK_HOLE", 4),
];

/// `include/uapi/linux/falloc.h`.
pub(super) const FALLOCATE: Names = &[
    ("FALLOC_FL_KEEP_SIZE", 1),
    ("FALLOC_FL_PUNCH_HOLE", 2),
    ("FALLOC_FL_COLLAPSE_RANGE", 8),
    ("FALLOC_FL_ZERO_RANGE", 16),
    ("FALLOC_FL_INSERT_RANGE", 32),
    ("FALLOC_FL_UNSHARE_RANGE", 64),
];

/// `include/uapi/linux/fadvise.h`.
pub(super) const FADVISE: Names = &[
    ("POSIX_FADV_NORMAL", 0),
    ("POSIX_FADV_RANDOM", 1),
    ("POSIX_FADV_SEQUENTIAL", 2),
    ("POSIX_FADV_WILLNEED", 3),
    ("POSIX_FADV_DONTNEED", 4),
    ("POSIX_FADV_NOREUSE", 5),
];

/// `include/uapi/linux/fs.h`.
pub(super) const RENAME: Names = &[
    ("RENAME_NOREPLACE", 1),
    ("RENAME_EXCHANGE", 2),
    ("RENAME_WHITEOUT", 4),
];

/// `include/uapi/linux/fs.h`.
pub(super) const RWF: Names = &[
    ("RWF_HIPRI", 1),
    ("RWF_DSYNC", 2),
    ("RWF_SYNC", 4),
    ("RWF_NOWAIT", 8),
    ("RWF_APPEND", 16),
];

/// `include/uapi/linux/close_range.h`.
pub(super) const CLOSE_RANGE: Names = &[("CLOSE_RANGE_UNSHARE", 2), ("CLOSE_RANGE_CLOEXEC", 4)];

/// `include/uapi/linux/mount.h`.
pub(super) const MOUNT: Names = &[
    ("MS_RDONLY", 1),
    ("MS_NOSUID", 2),
    ("MS_NODEV", 4),
    ("MS_NOEXEC", 8),
    ("MS_SYNCHRONOUS", 16),
    ("MS_REMOUNT", 32),
    ("MS_MANDLOCK", 64),
    ("MS_DIRSYNC", 128),
    ("MS_NOSYMFOLLOW", 0x100),
    ("MS_NOATIME", 0x400),
    ("MS_NODIRATIME", 0x800),
    ("MS_BIND", 0x1000),
    ("MS_MOVE", 0x2000),
    ("MS_REC", 0x4000),
    ("MS_SILENT", 0x8000),
    ("MS_POSIXACL", 0x1_0000),
    ("MS_UNBINDABLE", 0x2_0000),
    ("MS_PRIVATE", 0x4_0000),
    ("MS_SLAVE", 0x8_0000),
    ("MS_SHARED", 0x10_0000),
    ("MS_RELATIME", 0x20_0000),
    ("MS_STRICTATIME", 0x100_0000),
    ("MS_LAZYTIME", 0x200_0000),
];

/// `include/uapi/asm-generic/ioctls.h`, `include/uapi/linux/sockios.h` and `include/uapi/linux/fs.h`. What a number means is
/// for the file to say; drivers share numbers.
pub(super) const IOCTL: Names = &[
    ("TCGETS", 0x5401),
    ("TCSETS", 0x5402),
    ("TCSETSW", 0x5403),
    ("TCSETSF", 0x5404),
    ("TCGETA", 0x5405),
    ("TCSETA", 0x5406),
    ("TCSETAW", 0x5407),
    ("TCSETAF", 0x5408),
    ("TCSBRK", 0x5409),
    ("TCXONC", 0x540a),
    ("TCFLSH", 0x540b),
    ("TIOCEXCL", 0x540c),
    ("TIOCNXCL", 0x540d),
    ("TIOCSCTTY", 0x540e),
    ("TIOCGPGRP", 0x540f),
    ("TIOCSPGRP", 0x5410),
    ("TIOCOUTQ", 0x5411),
    ("TIOCSTI", 0x5412),
    ("TIOCGWINSZ", 0x5413),
    ("TIOCSWINSZ", 0x5414),
    ("TIOCMGET", 0x5415),
    ("TIOCMBIS", 0x5416),
    ("TIOCMBIC", 0x5417),
    ("TIOCMSET", 0x5418),
    ("FIONREAD", 0x541b),
    ("TIOCLINUX", 0x541c),
    ("TIOCCONS", 0x541d),
    ("TIOCPKT", 0x5420),
    ("FIONBIO", 0x5421),
    ("TIOCNOTTY", 0x5422),
    ("TIOCSETD", 0x5423),
    ("TIOCGETD", 0x5424),
    ("TCSBRKP", 0x5425),
    ("TIOCSBRK", 0x5427),
    ("TIOCCBRK", 0x5428),
    ("TIOCGSID", 0x5429),
    ("TCGETS2", 0x802c_542a),
    ("TCSETS2", 0x402c_542b),
    ("TCSETSW2", 0x402c_542c),
    ("TCSETSF2", 0x402c_542d),
    ("TIOCGPTN", 0x8004_5430),
    ("TIOCSPTLCK", 0x4004_5431),
    ("TIOCGDEV", 0x8004_5432),
    ("TIOCSIG", 0x4004_5436),
    ("TIOCVHANGUP", 0x5437),
    ("TIOCGPKT", 0x8004_5438),
    ("TIOCGPTLCK", 0x8004_5439),
    ("TIOCGEXCL", 0x8004_5440),
    ("TIOCGPTPEER", 0x5441),
    ("FIONCLEX", 0x5450),
    ("FIOCLEX", 0x5451),
    ("FIOASYNC", 0x5452),
    ("FIOQSIZE", 0x5460),
    ("SIOCADDRT", 0x890b),
    ("SIOCDELRT", 0x890c),
    ("SIOCGIFNAME", 0x8910),
    ("SIOCGIFCONF", 0x8912),
    ("SIOCGIFFLAGS", 0x8913),
    ("SIOCSIFFLAGS", 0x8914),
    ("SIOCGIFADDR", 0x8915),
    ("SIOCSIFADDR", 0x8916),
    ("SIOCGIFDSTADDR", 0x8917),
    ("SIOCSIFDSTADDR", 0x8918),
    ("SIOCGIFBRDADDR", 0x8919),
    ("SIOCSIFBRDADDR", 0x891a),
    ("SIOCGIFNETMASK", 0x891b),
    ("SIOCSIFNETMASK", 0x891c),
    ("SIOCGIFMETRIC", 0x891d),
    ("SIOCSIFMETRIC", 0x891e),
    ("SIOCGIFMTU", 0x8921),
    ("SIOCSIFMTU", 0x8922),
    ("SIOCSIFNAME", 0x8923),
    ("SIOCSIFHWADDR", 0x8924),
    ("SIOCGIFHWADDR", 0x8927),
    ("SIOCGIFINDEX", 0x8933),
    ("SIOCGIFCOUNT", 0x8938),
    ("SIOCGIFBR", 0x8940),
    ("SIOCSIFBR", 0x8941),
    ("SIOCGIFTXQLEN", 0x8942),
    ("SIOCSIFTXQLEN", 0x8943),
    ("SIOCETHTOOL", 0x8946),
    ("SIOCOUTQNSD", 0x894b),
    ("SIOCGSKNS", 0x894c),
    ("SIOCDARP", 0x8953),
    ("SIOCGARP", 0x8954),
    ("SIOCSARP", 0x8955),
    ("SIOCGIFMAP", 0x8970),
    ("SIOCSIFMAP", 0x8971),
    ("SIOCBRADDBR", 0x89a0),
    ("SIOCBRDELBR", 0x89a1),
    ("SIOCBRADDIF", 0x89a2),
    ("SIOCBRDELIF", 0x89a3),
    ("FIBMAP", 1),
    ("FIGETBSZ", 2),
    ("FIFREEZE", 0xc004_5877),
    ("FITHAW", 0xc004_5878),
    ("FITRIM", 0xc018_5879),
    ("FICLONE", 0x4004_9409),
    ("FICLONERANGE", 0x4020_940d),
    ("FIDEDUPERANGE", 0xc018_9436),
    ("FS_IOC_GETFLAGS", 0x8008_6601),
    ("FS_IOC_SETFLAGS", 0x4008_6602),
    ("FS_IOC_GETVERSION", 0x8008_7601),
    ("FS_IOC_FIEMAP", 0xc020_660b),
    ("FS_IOC_FSGETXATTR", 0x801c_581f),
    ("FS_IOC_FSSETXATTR", 0x401c_5820),
];
