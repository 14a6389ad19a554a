# frozen_string_literal: true

# Reads an array of trees in wire form, and writes of each: its compact tree, with and
# without arguments, its tree with the numbers of its steps, and their number.

module Interop
  def self.compact_trees(nodes)
    companion = SidekiqFlow::Companion
    nodes.map do |node|
      compact = [true, false].map { |args| JSON.parse(companion::CompactTree.dump(node, args: args)) }
      numbers = companion::StepNumbers.number(node)
      {"compact" => compact, "numbered" => node, "last" => numbers.last, "skipped" => numbers.skipped}
    end
  end
end

puts JSON.generate(Interop.compact_trees(JSON.parse($stdin.read)))
