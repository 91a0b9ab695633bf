//! ImageCatalog and ClusterImageCatalog: images by major version.

use crate::cluster::Extension;
use crate::record::record;

record! {
    /// Images by major version.
    pub struct ImageCatalogSpec {
        /// Images with PostgreSQL.
        images "images": Vec<CatalogImage>,
        /// Images of other parts, by name.
        component_images "componentImages": Vec<ComponentImage>,
    }

    /// The image of a major version.
    pub struct CatalogImage {
        /// Major version of PostgreSQL.
        major "major": Option<i32>,
        /// The image.
        image "image": Option<String>,
        /// Extensions in images of their own.
        extensions "extensions": Vec<Extension>,
    }

    /// The image of another part.
    pub struct ComponentImage {
        /// Its name.
        key "key": Option<String>,
        /// The image.
        image "image": Option<String>,
    }
}

impl ImageCatalogSpec {
    /// The image of a major version, if the catalog has one.
    pub fn image_of(&self, major: i32) -> Option<&str> {
        self.images.iter().find(|entry| entry.major == Some(major))?.image.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_gives_the_image_of_a_major_version_or_none() {
        let catalog: ImageCatalogSpec = serde_json::from_value(serde_json::json!({
            "images": [{ "major": 17, "image": "postgres:17.6" }, { "major": 18 }]
        }))
        .unwrap();
        assert_eq!(catalog.image_of(17), Some("postgres:17.6"));
        assert_eq!(catalog.image_of(18), None);
        assert_eq!(catalog.image_of(16), None);
    }
}
