# frozen_string_literal: true

module SidekiqFlow::Companion
  # The Lua scripts by name: the text that the Python package sends.
  LUA = Dir[File.join(__dir__, "lua", "*.lua")].to_h do |path|
    [File.basename(path, ".lua"), File.read(path, encoding: "UTF-8")]
  end.freeze
end
