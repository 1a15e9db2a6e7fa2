//! A file system of our own: an image on a loop device (or a tmpfs), in a mount namespace that ends
//! with us, so that nothing stays mounted however we end.

use crate::Outcome;
use crate::steps::Rng;
use rustix::ioctl;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, create_dir_all};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A file system that can be shut down under its users.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Ext4, Kind::Xfs];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        }
    }

    /// The smallest image it takes, or a comfortable one.
    fn bytes(self) -> u64 {
        match self {
            Kind::Ext4 => 64 << 20,
            Kind::Xfs => 320 << 20,
        }
    }

    /// How one may be made, and mounted.
    fn ways(self) -> &'static [(&'static [&'static str], &'static str)] {
        match self {
            Kind::Ext4 => &[
                (&[], "loop"),
                (&["-b", "1024"], "loop"),
                (&[], "loop,data=writeback"),
                (&[], "loop,nodelalloc"),
                (&[], "loop,data=journal"),
            ],
            Kind::Xfs => &[(&[], "loop"), (&["-b", "size=1024"], "loop")],
        }
    }
}

/// What is lost when the power goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Everything the file system has not made durable.
    All,
    /// Not the journal of the file system, which is written first: names and lengths may survive
    /// without their data.
    Data,
}

/// The variable that says that we are in a namespace of our own.
const INSIDE: &str = "ESKER_TORTURE_INSIDE";

/// Goes on in a mount namespace of our own: this program is started anew there, in this process. An
/// error if that cannot be, with the reason.
pub fn go_inside() -> Outcome {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let own = ["--mount", "--propagation", "private", "--"];
    call("unshare", own.iter().chain(&["true"]))?;
    let mut again = Command::new("unshare");
    again.args(own).arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    Err(again.exec().into())
}

/// Nothing is mounted where it would stay.
fn need_inside() -> Outcome {
    match std::env::var_os(INSIDE) {
        Some(_) => Ok(()),
        None => Err("this needs root, and a mount namespace".into()),
    }
}

/// A mounted image. Unmounted when dropped.
pub struct Disk {
    kind: Kind,
    image: PathBuf,
    mount: PathBuf,
    how: &'static [&'static str],
    options: &'static str,
    mounted: bool,
}

impl Disk {
    /// A new file system, made and mounted below `work`, in one of several ways.
    pub fn new(work: &Path, kind: Kind, rng: &mut Rng) -> Outcome<Disk> {
        need_inside()?;
        let (image, mount) = (work.join("image"), work.join("disk"));
        let (how, options) = rng.pick(kind.ways());
        File::create(&image)?.set_len(kind.bytes())?;
        let (make, quiet) = match kind {
            Kind::Ext4 => ("mkfs.ext4", ["-q", "-F"]),
            Kind::Xfs => ("mkfs.xfs", ["-q", "-f"]),
        };
        let args = quiet.iter().chain(how).map(OsStr::new).chain([image.as_os_str()]);
        call(make, args)?;
        create_dir_all(&mount)?;
        let mut disk = Disk { kind, image, mount, how, options, mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }

    fn mount(&mut self) -> Outcome {
        let args = [OsStr::new("-t"), self.kind.name().as_ref(), "-o".as_ref(), self.options.as_ref()];
        call("mount", args.into_iter().chain([self.image.as_os_str(), self.mount.as_os_str()]))?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it; waits for those who still hold it.
    fn unmount(&mut self) -> Outcome {
        let mut tries = 0;
        while let Err(e) = call("umount", [&self.mount]) {
            tries += 1;
            if tries > 500 {
                return Err(e);
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        self.mounted = false;
        Ok(())
    }

    /// The power goes: from here on nothing reaches the disk.
    pub fn cut(&self, cut: Cut) -> io::Result<()> {
        shut_down(&File::open(&self.mount)?, cut)
    }

    /// The power is back, and nobody uses it any more.
    pub fn restart(&mut self) -> Outcome {
        self.unmount()?;
        self.mount()
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} made with {:?}, mounted with {}", self.kind.name(), self.how, self.options)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            let _ = call("umount", [OsStr::new("--lazy"), self.mount.as_os_str()]);
        }
    }
}

/// A file system in memory, of limited size. Unmounted when dropped.
pub struct Tmpfs {
    mount: PathBuf,
}

impl Tmpfs {
    pub fn new(work: &Path, bytes: u64) -> Outcome<Tmpfs> {
        need_inside()?;
        let mount = work.join("memory");
        create_dir_all(&mount)?;
        let size = format!("size={bytes}");
        let args = ["-t", "tmpfs", "-o", &size, "none"].map(OsStr::new);
        call("mount", args.into_iter().chain([mount.as_os_str()]))?;
        Ok(Tmpfs { mount })
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Gives it another size, under its users.
    pub fn resize(&self, bytes: u64) -> Outcome {
        let options = format!("remount,size={bytes}");
        call("mount", [OsStr::new("-o"), options.as_ref(), self.mount.as_os_str()])
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = call("umount", [OsStr::new("--lazy"), self.mount.as_os_str()]);
    }
}

/// Shuts a file system down by one of its files.
fn shut_down(file: &File, cut: Cut) -> io::Result<()> {
    /// `_IOR('X', 125, u32)`, the same for all file systems that know it.
    const FS_IOC_SHUTDOWN: ioctl::Opcode = 0x8004_587d;
    let flags: u32 = match cut {
        Cut::Data => 1,
        Cut::All => 2,
    };
    // SAFETY: the call reads a 32-bit number at the address it is given, and writes nothing; the
    // setter passes the address of such a number, which lives until the call has returned. The
    // direction in the code is historical.
    let done = unsafe { ioctl::ioctl(file, ioctl::Setter::<FS_IOC_SHUTDOWN, u32>::new(flags)) };
    Ok(done?)
}

/// Runs a program to its end; an error says what it had to say.
pub fn call<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> Outcome {
    let out = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr);
        return Err(format!("{program}: {}", text.trim().trim_start_matches(&format!("{program}: "))).into());
    }
    Ok(())
}
