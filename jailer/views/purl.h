// Package URLs (purl) of Debian packages.
#pragma once

#include <string>
#include <string_view>

namespace jail::views {

/// `text` as a component of a purl: what is not a letter, a digit or one of ".-_~:" as %XX.
[[nodiscard]] std::string purl_encode(std::string_view text);

/// "pkg:deb/debian/libssl3@3.0.14-1~deb12u1?arch=amd64&distro=debian-12". The vendor is the distribution's
/// name; "debian" where the distribution is not known.
[[nodiscard]] std::string deb_purl(std::string_view name, std::string_view version,
                                   std::string_view architecture, std::string_view distribution);

}  // namespace jail::views
