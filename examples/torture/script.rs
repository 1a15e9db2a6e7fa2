//! Raw operations on files, drawn from a seed, on the real file system and on the simulated one alike.

use crate::Outcome;
use crate::child::{Child, Heard};
use crate::steps::Rng;
use crate::tell::{Told, tell};
use esker::fs::os::OsFs;
use esker::fs::{File, Fs, write_all_at};
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const NAMES: [&str; 6] = ["a", "b", "c", "d/a", "d/b", "d/c"];
const DIR: &str = "d";
/// Files stay below this.
const LARGEST: usize = 64 << 10;

/// A lie of the script: the real file system does not sync when the simulated one does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truth {
    Honest,
    NeverSyncs,
}

/// Makes the same operations as every other player with the same seed.
pub struct Player {
    fs: Arc<dyn Fs>,
    root: PathBuf,
    rng: Rng,
    truth: Truth,
    /// All files ever made, open, and which of them each name stands for.
    files: Vec<Arc<dyn File>>,
    names: [Option<usize>; NAMES.len()],
    made_dir: bool,
}

impl Player {
    pub fn new(fs: Arc<dyn Fs>, root: &Path, seed: u64, truth: Truth) -> Player {
        let (files, names) = (Vec::new(), [None; NAMES.len()]);
        Player { fs, root: root.into(), rng: Rng::new(&[seed, 5]), truth, files, names, made_dir: false }
    }

    /// One more operation. The simulated one counts one for it at most.
    pub fn step(&mut self) -> io::Result<()> {
        let (kind, from, to) = (self.rng.below(32), self.rng.below(NAMES.len()), self.rng.below(NAMES.len()));
        let file = self.rng.below(self.files.len());
        if !self.made_dir {
            self.made_dir = true;
            return self.fs.create_dir_all(&self.root.join(DIR));
        }
        let path = |n: usize| self.root.join(NAMES[n]);
        match (kind, self.names[from], self.names[to]) {
            (0..5, None, _) => {
                self.names[from] = Some(self.files.len());
                self.files.push(self.fs.create(&path(from))?);
            }
            (5..7, Some(_), _) => {
                self.names[from] = None;
                self.fs.remove(&path(from))?;
            }
            (7..10, Some(file), None) => {
                self.names[to] = Some(file);
                self.fs.link(&path(from), &path(to))?;
            }
            (10..12, ..) if self.truth == Truth::Honest => self.fs.sync_dir(&self.root)?,
            (12..14, ..) if self.truth == Truth::Honest => self.fs.sync_dir(&self.root.join(DIR))?,
            (14.., ..) if !self.files.is_empty() => self.touch(kind, file)?,
            _ => {}
        }
        Ok(())
    }

    /// An operation on a file, which may have lost its names.
    fn touch(&mut self, kind: usize, file: usize) -> io::Result<()> {
        let (file, rng) = (self.files[file].clone(), &mut self.rng);
        let large = rng.one_in(3);
        let at = rng.below(if large { LARGEST / 2 } else { 3000 });
        let len = 1 + rng.below(if large { LARGEST / 2 } else { 1000 });
        let (seed, fresh) = (rng.next(), rng.one_in(2));
        // The same bytes again, now and then: those are in no danger.
        let bytes: Vec<u8> =
            (at..at + len).map(|i| if fresh { (seed >> (i % 50)) as u8 } else { 7 }).collect();
        match kind {
            14..18 if self.truth == Truth::Honest => file.sync(),
            18..20 => file.allocate((at + len) as u64),
            20..25 => {
                let end = file.len()?.min((at + len) as u64);
                if end <= at as u64 {
                    return Ok(());
                }
                let bytes = &bytes[..end as usize - at];
                match file.window(end)? {
                    Some(mut window) => {
                        window.populate(at as u64, bytes.len() as u64)?;
                        window.write(at as u64, bytes)
                    }
                    None => write_all_at(&*file, bytes, at as u64),
                }
            }
            25.. => write_all_at(&*file, &bytes, at as u64),
            _ => Ok(()),
        }
    }
}

/// The life of a child: a step for each line it is sent.
pub fn run(dir: &Path, seed: u64, truth: Truth) -> Outcome {
    let mut player = Player::new(Arc::new(OsFs), dir, seed, truth);
    for (n, line) in io::stdin().lock().lines().enumerate() {
        line?;
        player.step()?;
        tell(Told::Stepped { n: n as u64 + 1 });
    }
    Ok(())
}

/// Has the child make its next step.
pub fn step(child: &mut Child) -> Outcome {
    child.say("")?;
    match child.hear(Instant::now() + Duration::from_secs(60)) {
        Heard::Told(Told::Stepped { .. }) => Ok(()),
        _ => Err(format!("the script does not go on: {}", child.log()).into()),
    }
}
