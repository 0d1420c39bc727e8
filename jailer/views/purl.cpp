#include "jailer/views/purl.h"

namespace jail::views {

std::string purl_encode(std::string_view text) {
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_~:";
  constexpr std::string_view digits = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    if (plain.find(c) != std::string_view::npos) {
      encoded += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    encoded += '%';
    encoded += digits[byte >> 4U];
    encoded += digits[byte & 15U];
  }
  return encoded;
}

std::string deb_purl(std::string_view name, std::string_view version, std::string_view architecture,
                     std::string_view distribution) {
  const std::string_view vendor = distribution.substr(0, distribution.find('-'));
  std::string purl = "pkg:deb/" + (vendor.empty() ? std::string("debian") : purl_encode(vendor)) + "/";
  purl += purl_encode(name);
  if (!version.empty()) purl += "@" + purl_encode(version);
  char separator = '?';
  const auto qualifier = [&](const char* key, std::string_view value) {
    if (value.empty()) return;
    purl += separator + std::string(key) + "=" + purl_encode(value);
    separator = '&';
  };
  qualifier("arch", architecture);
  qualifier("distro", distribution);
  return purl;
}

}  // namespace jail::views
