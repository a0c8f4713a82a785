//! Searches that stand in no usage: in the blocks of a message, in what is beside them, in Google's grounding
//! metadata. `langmeter.usage.provider_formats` has the same.

use crate::response::usage::{Read, Stop, entry};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

/// Searches that a message shows.
#[derive(Default)]
pub struct Searches {
    pub web: u64,
    pub files: u64,
}

/// A text among the entries of a block.
fn text<'py>(block: &Bound<'py, PyDict>, key: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyString>>> {
    Ok(block.get_item(key)?.and_then(|text| text.cast_into::<PyString>().ok()))
}

fn is(block: &Bound<'_, PyDict>, key: &Bound<'_, PyString>, word: &str) -> Read<bool> {
    let text = text(block, key)?;
    Ok(match &text {
        Some(text) => text.to_str().map_err(|_| Stop::Careful)? == word,
        None => false,
    })
}

impl Searches {
    pub fn in_blocks(&mut self, blocks: &Bound<'_, PyAny>) -> Read<()> {
        let Ok(blocks) = blocks.cast::<PyList>() else { return Ok(()) };
        for block in blocks.iter() {
            if let Ok(block) = block.cast::<PyDict>() {
                self.block(block)?;
            }
        }
        Ok(())
    }

    /// `additional_kwargs`: OpenAI's output items and Groq's tools.
    pub fn in_extra(&mut self, extra: &Bound<'_, PyAny>) -> Read<()> {
        let Ok(extra) = extra.cast::<PyDict>() else { return Ok(()) };
        if extra.is_empty() {
            return Ok(());
        }
        let py = extra.py();
        if let Some(outputs) = extra.get_item(intern!(py, "tool_outputs"))? {
            self.in_blocks(&outputs)?;
        }
        if let Some(tools) = extra.get_item(intern!(py, "executed_tools"))? {
            self.in_tools(&tools)?;
        }
        Ok(())
    }

    /// What metadata hold of them, where a client leaves them there.
    pub fn in_metadata(&mut self, items: &[Option<Bound<'_, PyAny>>; 3]) -> Read<()> {
        let [output, outputs, tools] = items;
        if let Some(output) = output {
            self.in_blocks(output)?;
        }
        if let Some(outputs) = outputs {
            self.in_blocks(outputs)?;
        }
        if let Some(tools) = tools {
            self.in_tools(tools)?;
        }
        Ok(())
    }

    fn in_tools(&mut self, tools: &Bound<'_, PyAny>) -> Read<()> {
        let Ok(tools) = tools.cast::<PyList>() else { return Ok(()) };
        let kind = intern!(tools.py(), "type");
        for tool in tools.iter() {
            let Ok(tool) = tool.cast::<PyDict>() else { continue };
            let Some(kind) = text(tool, kind)? else { continue };
            let kind = kind.to_str().map_err(|_| Stop::Careful)?;
            self.web += u64::from(matches!(kind, "search" | "web_search" | "browser_search" | "browser.search"));
        }
        Ok(())
    }

    fn block(&mut self, block: &Bound<'_, PyDict>) -> Read<()> {
        let py = block.py();
        let Some(kind) = text(block, intern!(py, "type"))? else { return Ok(()) };
        let status = intern!(py, "status");
        match kind.to_str().map_err(|_| Stop::Careful)? {
            "web_search_call" | "x_search_call" => {
                let searched = !is(block, status, "failed")? && is_search(block, intern!(py, "action"))?;
                self.web += u64::from(searched);
            }
            "file_search_call" => self.files += u64::from(!is(block, status, "failed")?),
            "web_search_tool_result" => {
                let failed = match block.get_item(intern!(py, "content"))? {
                    Some(content) => match content.cast::<PyDict>() {
                        Ok(content) => entry(content, &[intern!(py, "error_code")])?.is_some(),
                        Err(_) => false,
                    },
                    None => false,
                };
                self.web += u64::from(!failed);
            }
            // Anthropic's and OpenAI's, in LangChain's own words.
            "server_tool_result" => {
                if is(block, status, "error")? {
                    return Err(Stop::Careful); // which of the calls it was
                }
                if let Some(extras) = block.get_item(intern!(py, "extras"))?
                    && let Ok(extras) = extras.cast::<PyDict>()
                {
                    let result = is(extras, intern!(py, "block_type"), "web_search_tool_result")?;
                    self.web += u64::from(result);
                }
            }
            "server_tool_call" => {
                let id = text(block, intern!(py, "id"))?;
                let of_anthropic = match &id {
                    Some(id) => id.to_str().map_err(|_| Stop::Careful)?.starts_with("srvtoolu_"),
                    None => false,
                };
                if !of_anthropic {
                    let name = intern!(py, "name");
                    let searched = is(block, name, "web_search")? && is_search(block, intern!(py, "args"))?;
                    self.web += u64::from(searched);
                    self.files += u64::from(is(block, name, "file_search")?);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether the action of a block is a search; those of opening or searching a page are free.
fn is_search(block: &Bound<'_, PyDict>, key: &Bound<'_, PyString>) -> Read<bool> {
    let Some(action) = block.get_item(key)? else { return Ok(true) };
    let Ok(action) = action.cast::<PyDict>() else { return Ok(true) };
    match entry(action, &[intern!(block.py(), "type")])? {
        Some(kind) => Ok(kind.eq("search")?),
        None => Ok(true),
    }
}

/// Searches that Google's grounding metadata show: each query is billed, but a grounded answer as one up to Gemini 2.
pub fn grounded(metadata: &Bound<'_, PyAny>, model: &str) -> Read<u64> {
    let py = metadata.py();
    if metadata.is_none() {
        return Ok(0);
    }
    let metadata = metadata.cast::<PyDict>().map_err(|_| Stop::Careful)?;
    let mut count = 0_u64;
    for keys in [
        [intern!(py, "web_search_queries"), intern!(py, "webSearchQueries")],
        [intern!(py, "image_search_queries"), intern!(py, "imageSearchQueries")],
    ] {
        let Some(queries) = entry(metadata, &keys)? else { continue };
        let Ok(queries) = queries.cast::<PyList>() else { continue };
        let mut distinct: Vec<String> = Vec::new();
        for query in queries.iter() {
            let Ok(query) = query.cast::<PyString>() else { continue };
            let query = query.to_str().map_err(|_| Stop::Careful)?;
            if !query.is_empty() && !distinct.iter().any(|known| known == query) {
                distinct.push(query.to_owned());
            }
        }
        count += u64::try_from(distinct.len()).unwrap_or(u64::MAX);
    }
    let by_answer = model.contains("gemini-1") || model.contains("gemini-2");
    Ok(if by_answer { count.min(1) } else { count })
}
