//! What the operator attached: evaluators that run when a run ends, and the folder of eval sets.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tailspan_core::eval::{Config, EvalSet};

/// Of an eval set's file, as of a trace file of `/api`.
const MAX_EVAL_SET_BYTES: u64 = 10 << 20;
/// Files of a folder that are looked through for an eval set.
const MAX_FILES: usize = 1_000;

/// A configuration that was read from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    pub config: Config,
    /// Where its relative paths begin.
    pub folder: PathBuf,
    /// The eval set that it names.
    pub eval_set: Option<Arc<EvalSet>>,
}

impl Operator {
    /// Reads a YAML file, and the eval set that it names: beside the file, else in the working directory.
    ///
    /// # Errors
    /// A sentence for each mistake.
    pub fn load(path: &Path) -> Result<Self, Vec<String>> {
        let text = fs::read_to_string(path)
            .map_err(|error| vec![format!("cannot read {}: {error}", path.display())])?;
        let config = Config::from_yaml(&text)?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let eval_set = config.eval_set.as_deref().map(|named| {
            let beside = folder.join(named);
            let path = match beside.is_file() {
                true => beside,
                false => PathBuf::from(named),
            };
            load_eval_set(&path).map(Arc::new)
        });
        Ok(Self {
            eval_set: eval_set.transpose().map_err(|error| vec![error])?,
            folder,
            config,
        })
    }
}

/// Reads an eval set's file.
///
/// # Errors
/// A sentence with the path: it cannot be read, is too large, or is no eval set (and where).
pub fn load_eval_set(path: &Path) -> Result<EvalSet, String> {
    let cannot = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(cannot)?;
    let mut file = file.take(MAX_EVAL_SET_BYTES + 1);
    file.read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_EVAL_SET_BYTES {
        return Err(format!(
            "{} has more than {MAX_EVAL_SET_BYTES} bytes",
            path.display()
        ));
    }
    EvalSet::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// The eval set of this id in a folder: `eval_set_id` of a `.json` file, that file being looked at first which is called so. `None`: there is none.
/// The id is never made a path, so it may be anything.
///
/// # Errors
/// A sentence: the folder cannot be read, or the file that is called so is no eval set.
pub fn find_eval_set(folder: &Path, id: &str) -> Result<Option<EvalSet>, String> {
    let entries = fs::read_dir(folder)
        .map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .take(MAX_FILES)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    files.sort();
    let is_called_so = |path: &Path| path.file_stem().is_some_and(|stem| stem == id);
    if let Some(path) = files.iter().find(|path| is_called_so(path)) {
        let set = load_eval_set(path)?;
        if set.id == id {
            return Ok(Some(set));
        }
    }
    // What else lies there may be anything.
    Ok(files
        .iter()
        .filter_map(|path| load_eval_set(path).ok())
        .find(|set| set.id == id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eval_sets_are_found_by_their_id() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("b.json", r#"{"eval_set_id": "other", "eval_cases": []}"#);
        write("c.json", "{}");
        write("notes.txt", "no eval set");
        let found = |id: &str| find_eval_set(folder.path(), id);
        assert_eq!(found("other").unwrap().unwrap().id, "other");
        assert_eq!(found("../b").unwrap(), None);
        assert!(found("c").unwrap_err().contains("eval_set_id: missing"));
        assert!(find_eval_set(Path::new("/nowhere"), "x").is_err());
    }

    #[test]
    fn a_configuration_s_eval_set_lies_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("evaluators.yaml");
        fs::write(
            &path,
            "eval_set: set.json\nevaluators: [{name: error_free, type: builtin}]",
        )
        .unwrap();
        assert!(Operator::load(&path).unwrap_err()[0].starts_with("cannot read set.json"));
        let set = r#"{"eval_set_id": "s", "eval_cases": []}"#;
        fs::write(folder.path().join("set.json"), set).unwrap();
        let operator = Operator::load(&path).unwrap();
        assert_eq!(operator.eval_set.unwrap().id, "s");
        assert_eq!(operator.folder, folder.path());
    }
}
