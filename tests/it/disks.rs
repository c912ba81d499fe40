//! The kill loop on disks that fail: the power goes, the disk is full, the disk becomes read-only.
//!
//! A power cut is an ext4 in a file that is told, while the server stands still, to write nothing more, its journal included,
//! and is mounted again: what was only in the kernel's memory is gone. A bad disk is a small ext4 under the cache directory, which is filled, or made
//! read-only as an error of the disk does it. To mount takes root; for anybody else these tests say that they are left out.
//!
//! Each of these changes to the code makes a test here fail: a directory store without `fsync` (the power cut); a start
//! that ends when the cache directory cannot be locked (the bad disk).

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::{Options, Server};
use crate::kill_loop;

const POWER_CUTS: u64 = 6;
const BAD_DISKS: u64 = 6;

/// Space and files that one life of the server may take on a disk.
const MB_PER_LIFE: u64 = 4;
const FILES_PER_LIFE: u64 = 600;
/// The small disk.
const SMALL_DISK_MB: u64 = 24;

/// `EXT4_IOC_SHUTDOWN` without writing the journal: from here on the kernel gives the disk nothing more.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

/// What the server of a kill loop lies on.
pub(crate) enum Disk {
    /// The disk of the test's directory.
    Plain,
    /// One that loses, with each kill, what was not synced.
    PowerCut(Image),
    /// One under the cache directory that is full or read-only at times.
    Bad(BadDisk),
}

/// An ext4 in a file of a tmpfs.
pub(crate) struct Image {
    file: PathBuf,
    disk: Mount,
    _files: Mount,
}

/// A small disk under the cache directory.
pub(crate) struct BadDisk {
    image: Image,
    read_only: bool,
    /// How many lives of the server it has seen.
    lives: u64,
}

/// Something mounted; unmounted when dropped.
struct Mount {
    at: TempDir,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_power_fails() {
    let kills = kill_loop::number("PLINTH_KILLS").unwrap_or(POWER_CUTS);
    if let Some(image) = Image::make(kills + 2).await {
        kill_loop::run(kills, Disk::PowerCut(image)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_or_read_only_cache_disk_stops_nothing_and_loses_nothing() {
    if let Some(disk) = BadDisk::make().await {
        kill_loop::run(BAD_DISKS, Disk::Bad(disk)).await;
    }
}

impl Disk {
    /// A disk that loses its power up to so many times; `None` for who may not mount.
    pub(crate) async fn power_cuts(cuts: u64) -> Option<Self> {
        Image::make(cuts + 2).await.map(Self::PowerCut)
    }

    /// Where the server's files go.
    pub(crate) fn options(&self) -> Options {
        match self {
            Self::Plain => Options::default(),
            Self::PowerCut(image) => {
                let disk = image.disk.at.path();
                let store = format!("file://{}", disk.join("objects").display());
                Options { store: Some(store), cache: Some(disk.join("cache")), ..Options::default() }
            }
            Self::Bad(bad) => Options { cache: Some(bad.image.disk.at.path().join("cache")), ..Options::default() },
        }
    }

    /// Something that happens to the disk while the server runs; whether it did.
    pub(crate) fn trouble(&mut self) -> bool {
        match self {
            Self::Plain | Self::PowerCut(_) => false,
            Self::Bad(bad) => {
                if bad.lives % 4 < 2 {
                    bad.fill();
                } else {
                    bad.fail();
                }
                true
            }
        }
    }

    /// Ends the server at once, with what that does to the disk.
    pub(crate) async fn kill(&mut self, server: &mut Server) {
        match self {
            Self::Plain => server.kill9().await,
            Self::PowerCut(image) => image.cut(server).await,
            Self::Bad(bad) => {
                server.kill9().await;
                // Every other start finds the trouble.
                if bad.lives % 2 == 1 {
                    bad.mend().await;
                }
                bad.lives += 1;
            }
        }
    }

    /// Ends the trouble, while no server runs.
    pub(crate) async fn mend(&mut self) {
        match self {
            Self::Plain | Self::PowerCut(_) => {}
            Self::Bad(bad) => bad.mend().await,
        }
    }

    /// Whether what is synced is there after a kill, and can be read.
    pub(crate) fn keeps_files(&self) -> bool {
        match self {
            Self::Plain | Self::PowerCut(_) => true,
            Self::Bad(_) => false,
        }
    }

    /// Whether files can be removed and made.
    pub(crate) fn takes_writes(&self) -> bool {
        match self {
            Self::Plain | Self::PowerCut(_) => true,
            Self::Bad(bad) => !bad.read_only,
        }
    }
}

impl Image {
    /// An image with room for `lives` lives of a server.
    async fn make(lives: u64) -> Option<Self> {
        Self::of_size(64 + MB_PER_LIFE * lives, 10_000 + FILES_PER_LIFE * lives).await
    }

    async fn of_size(megabytes: u64, files_max: u64) -> Option<Self> {
        let files = Mount::tmpfs(megabytes + 16).await?;
        let file = files.at.path().join("disk");
        std::fs::File::create(&file).and_then(|file| file.set_len(megabytes << 20)).expect("an image can be made");
        run("mkfs.ext4", &["-q", "-N", &files_max.to_string(), text(&file)]).await;
        let disk = Mount { at: tempfile::tempdir().expect("a directory can be made") };
        let made = Self { file, disk, _files: files };
        made.mount().await;
        Some(made)
    }

    async fn mount(&self) {
        run("mount", &["-o", "loop,errors=remount-ro", text(&self.file), text(self.disk.at.path())]).await;
    }

    async fn unmount(&self) {
        run("umount", &[text(self.disk.at.path())]).await;
    }

    /// Keeps of the disk what it has been given up to now, and goes on with that.
    async fn cut(&mut self, server: &mut Server) {
        server.signal("STOP").await;
        run("python3", &["-c", SHUT_DOWN, text(self.disk.at.path())]).await;
        server.kill9().await;
        self.unmount().await;
        self.mount().await;
    }
}

impl BadDisk {
    async fn make() -> Option<Self> {
        Some(Self { image: Image::of_size(SMALL_DISK_MB, 1000).await?, read_only: false, lives: 0 })
    }

    fn ballast(&self) -> PathBuf {
        self.image.disk.at.path().join("ballast")
    }

    /// Leaves no byte free.
    fn fill(&self) {
        if self.read_only {
            return;
        }
        let bytes = vec![0; usize::try_from(SMALL_DISK_MB << 20).expect("a small disk")];
        let full = std::fs::write(self.ballast(), bytes).expect_err("more than fits was written");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    /// An error of the disk, after which the kernel lets nobody write, files that are open included.
    fn fail(&mut self) {
        if self.read_only {
            return;
        }
        let mounts = std::fs::read_to_string("/proc/mounts").expect("the kernel tells its mounts");
        let here = mounts.lines().find(|line| line.contains(text(self.image.disk.at.path())));
        let device = here.and_then(|line| line.split(' ').next()).and_then(|device| device.strip_prefix("/dev/"));
        let switch = format!("/sys/fs/ext4/{}/trigger_fs_error", device.expect("the disk is mounted"));
        std::fs::write(switch, "a test").expect("an error can be caused");
        self.read_only = true;
    }

    /// Ends the trouble; nobody may have a file open on the disk.
    async fn mend(&mut self) {
        if self.read_only {
            self.image.unmount().await;
            self.image.mount().await;
            self.read_only = false;
        }
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("the ballast stays: {error}"),
            Ok(()) | Err(_) => {}
        }
    }
}

impl Mount {
    /// A tmpfs of so many megabytes; `None`, and a line that says so, for who may not mount.
    async fn tmpfs(megabytes: u64) -> Option<Self> {
        let at = tempfile::tempdir().expect("a directory can be made");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs", text(at.path())]).output().await;
        match mounted {
            Ok(output) if output.status.success() => Some(Self { at }),
            Ok(_) | Err(_) => {
                // Whoever asks for so many wants them.
                assert!(kill_loop::number("PLINTH_KILLS").is_none(), "only root may mount a disk");
                println!("left out: only root may mount a disk");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // When it fails the directory stays, and its removal says so.
        drop(std::process::Command::new("umount").arg("-l").arg(self.at.path()).status());
    }
}

async fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().await.expect("the program is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}
