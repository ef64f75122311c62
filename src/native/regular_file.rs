//! Opening and replacing regular files. Anything else is refused: opening a FIFO would wait for its writer, and reading or
//! replacing a device does what nobody asked for.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use spikenorm_core::{Error, ErrorCode};

use crate::error::Checked;

pub fn file_error(path: &str, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::File, format!("{path}: {what}"))
}

/// Opens a regular file for reading; returns its size too.
pub fn open(path: &str) -> Checked<(File, u64)> {
    let failed = |error: io::Error| file_error(path, error);
    // Before it is opened, since opening some devices does something already; and after, since it may have been replaced.
    expect_regular(path, &fs::metadata(path).map_err(failed)?)?;
    let file = without_waiting(OpenOptions::new().read(true)).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    expect_regular(path, &metadata)?;
    Ok((file, metadata.len()))
}

/// Replaces the contents of a file, all or nothing, or makes a new one: what `write` writes goes to a file beside it, which
/// is renamed once it is on the disk. Mode and owner are kept, and symbolic links are followed.
pub fn replace(path: &str, write: impl FnOnce(&mut dyn Write) -> Checked<()>) -> Checked<()> {
    let failed = |error: io::Error| file_error(path, error);
    let target = resolve(Path::new(path)).map_err(failed)?;
    let replaced = existing(path, &target)?;
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".spikenorm-").suffix(".tmp").rand_bytes(16);
    #[cfg(unix)]
    if replaced.is_none() {
        // As of any new file; the process's umask takes from it. Else nobody may look before the old mode is set.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    // Removed when dropped, unless it has been renamed.
    let temporary = builder.tempfile_in(folder).map_err(failed)?;
    let mut buffered = io::BufWriter::new(temporary.as_file());
    write(&mut buffered)?;
    buffered.flush().map_err(failed)?;
    drop(buffered);
    if let Some(replaced) = &replaced {
        keep_attributes(temporary.as_file(), replaced).map_err(failed)?;
    }
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(&target).map_err(|error| failed(error.error))?;
    sync_folder(folder)
        .map_err(|error| file_error(path, format!("written, but a power failure may undo it: {error}")))
}

/// The metadata of the file to be replaced, which must be one that may be written to.
fn existing(path: &str, target: &Path) -> Checked<Option<Metadata>> {
    let failed = |error: io::Error| file_error(path, error);
    match fs::metadata(target) {
        Ok(metadata) => {
            expect_regular(path, &metadata)?;
            // A rename asks for no permission to write to the file.
            without_waiting(OpenOptions::new().write(true)).open(target).map_err(failed)?;
            Ok(Some(metadata))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Follows symbolic links, to a file that need not be there.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    /// As Linux does.
    const MOST_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => {
                let link = fs::read_link(&path)?;
                path = path.parent().unwrap_or(Path::new("")).join(link);
            }
            _ => return Ok(path),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

fn expect_regular(path: &str, metadata: &Metadata) -> Checked<()> {
    if metadata.is_file() {
        Ok(())
    } else {
        Err(file_error(path, format!("is {}, not a file", kind(metadata))))
    }
}

fn kind(metadata: &Metadata) -> &'static str {
    if metadata.is_dir() {
        return "a folder";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = metadata.file_type();
        if kind.is_fifo() {
            return "a FIFO";
        } else if kind.is_socket() {
            return "a socket";
        }
    }
    "a device"
}

/// Should a FIFO have taken the file's place, opening it does not wait.
fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NONBLOCK);
    }
    options
}

#[cfg(unix)]
fn keep_attributes(file: &File, replaced: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (replaced.uid(), replaced.gid()) {
        match fchown(file, Some(replaced.uid()), Some(replaced.gid())) {
            // Only the superuser may give files away.
            Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    // After the owner, whose change takes the set-user-ID bit away.
    file.set_permissions(fs::Permissions::from_mode(replaced.mode() & 0o7777))
}

#[cfg(not(unix))]
fn keep_attributes(_file: &File, _replaced: &Metadata) -> io::Result<()> {
    Ok(())
}

/// Makes a rename last. Only Unix has folders that can be opened.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // A folder that may be written to but not read, or a file system that knows no such thing.
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}
