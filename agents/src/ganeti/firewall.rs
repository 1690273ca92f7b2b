//! The instance tag that gives one of its NICs a firewall profile:
//! `synnefo:network:<NIC name or index>:protected|limited|unprotected`.

/// The profile that `tags` give the NIC with this name and index; the name goes before the
/// index, the first tag before a later one. A tag with any other profile is not one of ours.
pub fn profile<'a>(
    tags: impl IntoIterator<Item = &'a str> + Clone,
    name: Option<&str>,
    index: usize,
) -> Option<&'a str> {
    let index = index.to_string();
    let find = |nic: &str| {
        tags.clone().into_iter().find_map(|tag| {
            let (of, profile) = tag.strip_prefix("synnefo:network:")?.split_once(':')?;
            let known = matches!(profile, "protected" | "limited" | "unprotected");
            (of == nic && known).then_some(profile)
        })
    };
    name.filter(|name| !name.is_empty())
        .and_then(find)
        .or_else(|| find(&index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_goes_before_the_index() {
        let tags = [
            "labtag",
            "synnefo:network:0:limited",
            "synnefo:network:snf-nic-1:protected",
            "synnefo:network:snf-nic-1:limited",
        ];
        assert_eq!(profile(tags, Some("snf-nic-1"), 0), Some("protected"));
        assert_eq!(profile(tags, Some("snf-nic-2"), 0), Some("limited"));
        assert_eq!(profile(tags, None, 0), Some("limited"));
        assert_eq!(profile(tags, Some(""), 0), Some("limited"));
        assert_eq!(profile(tags, Some("snf-nic-2"), 1), None);
    }

    #[test]
    fn a_tag_that_is_not_whole_is_none_of_ours() {
        for tag in [
            "synnefo:network:snf-nic-1",
            "synnefo:network:snf-nic-1:",
            "synnefo:network:snf-nic-1:open",
            "synnefo:network:snf-nic-1:protected:x",
            "xsynnefo:network:snf-nic-1:protected",
        ] {
            assert_eq!(profile([tag], Some("snf-nic-1"), 0), None, "{tag}");
        }
    }
}
