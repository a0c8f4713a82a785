//! The rows of labels: a row is of one value, or of several crossed, and of one model.

use super::Recorder;
use super::layout::ROWS;
use crate::metrics::Dropped;
use crate::series::{Kind, OTHER, SEPARATOR, SeriesId};

impl Recorder {
    /// The row of a label's value for the calls of a model. `key` and `value` of a label that crosses keys are joined by
    /// [`SEPARATOR`]. `labels` is how many labels there are: they share three quarters of the series, so that labels of
    /// many values leave room for models and components. The value of calls beyond a label's share is `other`.
    #[inline]
    pub(super) fn label(&self, key: &str, value: &str, model: SeriesId, labels: usize) -> SeriesId {
        match self.series.find(&self.cells, Kind::Label, model, key, value) {
            Some((id, cut)) => {
                self.note(false, cut);
                id
            }
            None => self.new_label(key, value, model, labels),
        }
    }

    /// The row of a call's label for another model than that which it began under.
    #[inline]
    pub(super) fn label_of(&self, label: SeriesId, model: SeriesId, labels: usize) -> SeriesId {
        if self.series.model_of(&self.cells, label) == Some(model) { label } else { self.moved(label, model, labels) }
    }

    #[cold]
    fn moved(&self, label: SeriesId, model: SeriesId, labels: usize) -> SeriesId {
        match self.series.own_labels(&self.cells, label) {
            Some((names, Some(_))) => self.label(&names.a, &names.b, model, labels),
            // Where there was no room for a row of a model.
            _ => label,
        }
    }

    /// Two threads that make the same row at once take its place in the share twice.
    #[cold]
    fn new_label(&self, key: &str, value: &str, model: SeriesId, labels: usize) -> SeriesId {
        let others = of_each_key(key, OTHER);
        // Made by the first call with this label, while there is room: the place where its rows are counted, and where
        // calls go once the table is full.
        let (rest, ..) = self.series.resolve(&self.cells, Kind::Label, key, &others);
        let rows = self.block(rest).wrapping_add(ROWS);
        let share = (self.series.slots().saturating_mul(3) / 4).checked_div(labels).unwrap_or(0).max(1);
        if self.cells.add(rows, 1) < share as u64 {
            let (id, other, cut) = self.series.resolve_of(&self.cells, Kind::Label, Some(model), key, value);
            if !other {
                self.note(false, cut);
                return id;
            }
        }
        self.cells.sub(rows, 1);
        self.drop_one(Dropped::SeriesCapped);
        let (id, other, _) = self.series.resolve_of(&self.cells, Kind::Label, Some(model), key, &others);
        if other { rest } else { id }
    }
}

/// The same text for each key of a label.
pub(super) fn of_each_key(key: &str, text: &str) -> String {
    let keys = key.matches(SEPARATOR).count().saturating_add(1);
    vec![text; keys].join(SEPARATOR.encode_utf8(&mut [0; 4]))
}
