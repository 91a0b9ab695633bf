//! Our own binary where the databases' user can run it: root's home is closed to others
//! (traps L2).

use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use matriarch_api::names;

use crate::layout::Layout;
use crate::user::RunAs;

/// Puts the running binary into the state directory, unless it is there already.
pub fn install(layout: &Layout, run_as: &RunAs) -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = layout.programs().join("matriarch");
    if is_same(&own, &target) {
        return Ok(target);
    }
    copy(&own, &target)?;
    // Theirs, so that pods may have hard links to it instead of copies.
    run_as.give(&target)?;
    Ok(target)
}

/// How a user starts this program: by its name if a shell finds it under that, else by its path.
pub fn invocation() -> String {
    let Ok(own) = std::env::current_exe() else { return "matriarch".to_owned() };
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| {
            folder.join("matriarch").canonicalize().is_ok_and(|program| program == own)
        })
    });
    if found { "matriarch".to_owned() } else { own.display().to_string() }
}

fn is_same(own: &Path, target: &Path) -> bool {
    let (Ok(own), Ok(target)) = (own.metadata(), target.metadata()) else { return false };
    own.len() == target.len() && own.modified().ok() == target.modified().ok()
}

fn copy(source: &Path, target: &Path) -> io::Result<()> {
    let temporary = target.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::copy(source, &temporary)?;
    fs::set_permissions(&temporary, Permissions::from_mode(0o755))?;
    let times = FileTimes::new().set_modified(source.metadata()?.modified()?);
    File::options().write(true).open(&temporary)?.set_times(times)?;
    fs::rename(&temporary, target)
}

/// What the init container does: puts the binary that runs to `target`, as a link where that is
/// possible and as a copy elsewhere.
///
/// What an exchange has left beside it is of another program and is removed.
pub fn install_to(target: &Path) -> io::Result<()> {
    let own = std::env::current_exe()?;
    for ending in [names::BINARY_NEXT, names::BINARY_PREVIOUS, names::BINARY_FAILED] {
        match fs::remove_file(target.with_extension(ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    if is_same(&own, target) {
        return Ok(());
    }
    let temporary = target.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    if fs::hard_link(&own, &temporary).is_ok() {
        return fs::rename(&temporary, target);
    }
    copy(&own, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_put_where_it_is_asked_for_and_again_over_itself() {
        let path = std::env::temp_dir().join(format!("m-program-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let target = path.join("matriarch");
        install_to(&target).unwrap();
        fs::write(target.with_extension(names::BINARY_PREVIOUS), "of an exchange").unwrap();
        install_to(&target).unwrap();
        assert_eq!(
            target.metadata().unwrap().len(),
            std::env::current_exe().unwrap().metadata().unwrap().len()
        );
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        fs::remove_dir_all(path).unwrap();
    }
}
