//! What stands at an address of a program: source lines and functions, those that were inlined there included, from the
//! line tables that the release profile makes.

use std::path::{Path, PathBuf};

use addr2line::{Loader, demangle_auto};
use object::{Object as _, ObjectSegment as _};

use super::StagesError;

/// A function at an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    /// Source file, as the compiler was given it.
    pub file: String,
    /// Line in it.
    pub line: u32,
    /// The function's own name, without its path and its types.
    pub function: String,
}

/// The line tables of a program.
pub struct Symbols {
    path: PathBuf,
    loader: Loader,
    /// Of each loaded part: offset in the file, length, address.
    parts: Vec<(u64, u64, u64)>,
}

impl std::fmt::Debug for Symbols {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Symbols")
            .field("path", &self.path)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

impl Symbols {
    /// Of the program at `path`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(path: &Path) -> Result<Self, StagesError> {
        let failed = |reason: String| StagesError::Symbols { path: path.to_owned(), reason };
        let loader = Loader::new(path).map_err(|error| failed(error.to_string()))?;
        let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let file = object::File::parse(&*bytes).map_err(|error| failed(error.to_string()))?;
        let part = |segment: object::Segment<'_, '_>| {
            let (offset, length) = segment.file_range();
            (offset, length, segment.address())
        };
        Ok(Self { path: path.to_owned(), loader, parts: file.segments().map(part).collect() })
    }

    /// The functions at an offset in the program's file, the innermost first.
    ///
    /// # Errors
    /// When the line tables are damaged.
    pub fn frames(&self, offset: u64) -> Result<Vec<Frame>, StagesError> {
        let failed = |reason: &dyn ToString| StagesError::Symbols {
            path: self.path.clone(),
            reason: reason.to_string(),
        };
        let part = self.parts.iter().find(|(start, length, _)| (*start..start + length).contains(&offset));
        let Some((start, _, address)) = part else { return Ok(Vec::new()) };
        let address = offset - start + address;
        let mut found = self.loader.find_frames(address).map_err(|error| failed(&error))?;
        let mut frames = Vec::new();
        while let Some(frame) = found.next().map_err(|error| failed(&error))? {
            let function = match &frame.function {
                Some(function) => own_name(&function.demangle().map_err(|error| failed(&error))?),
                // Line tables alone do not name a function that nothing was inlined into.
                None => own_name(&demangle_auto(
                    self.loader.find_symbol(address).unwrap_or_default().into(),
                    None,
                )),
            };
            let (file, line) = frame.location.map_or(("", 0), |location| {
                (location.file.unwrap_or_default(), location.line.unwrap_or_default())
            });
            frames.push(Frame { file: file.to_owned(), line, function });
        }
        Ok(frames)
    }
}

/// The last part of a path that is a function's name: without types, closures and implementations.
fn own_name(path: &str) -> String {
    let mut plain = String::new();
    let mut depth = 0_u32;
    for character in path.replace("->", "").chars() {
        match character {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(character),
            _ => {}
        }
    }
    let name = plain.rsplit("::").find(|part| !part.is_empty() && !part.starts_with('{'));
    name.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_s_own_name_has_neither_path_nor_types() {
        for (path, name) in [
            ("weir::pipeline::worker::Worker<F>::track", "track"),
            ("track<weir_ffi::mbuf::Mbuf, weir::lcore::transmit::Outputs>", "track"),
            ("weir_shard::lookup::<impl weir_shard::shard::Shard>::prepare", "prepare"),
            ("<weir_shard::shard::Shard>::prefetch", "prefetch"),
            ("weir::lcore::poll::Polling::round::{{closure}}", "round"),
            ("{closure#0}<fn() -> u8>", ""),
            ("call<fn(u8) -> Option<u8>>", "call"),
            ("", ""),
        ] {
            assert_eq!(own_name(path), name, "{path}");
        }
    }

    #[inline(never)]
    fn somewhere() -> usize {
        let place: fn() -> usize = somewhere;
        place as usize
    }

    #[test]
    fn a_function_of_this_program_is_found_by_its_offset() {
        let own = std::env::current_exe().expect("a path");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let address = somewhere();
        // START-END PERMISSIONS OFFSET ...
        let offset = maps.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let hex = |text| usize::from_str_radix(text, 16).ok();
            let (start, end, offset) = (hex(start)?, hex(end)?, hex(words.nth(1)?)?);
            (start..end).contains(&address).then_some(address - start + offset)
        });
        let symbols = Symbols::load(&own).expect("line tables");
        let frames = symbols.frames(offset.expect("it is mapped") as u64).expect("frames");
        let last = frames.last().expect("a frame");
        assert!(last.file.ends_with("stages/symbols.rs") && last.line > 0, "{last:?}");
        assert_eq!(last.function, "somewhere", "{frames:?}");
        assert_eq!(symbols.frames(u64::MAX - 1).expect("nothing is there"), []);
    }

    #[test]
    fn what_is_no_program_is_refused_by_name() {
        let error = Symbols::load(Path::new("/proc/self/maps")).expect_err("text");
        assert!(error.to_string().starts_with("/proc/self/maps: "), "{error}");
    }
}
