# frozen_string_literal: true

module SidekiqFlow::Companion
  # What a running step asks for; nothing is written before it ends (Python's twin is
  # wire/replace.py).
  class Changes
    attr_accessor :tree
    attr_reader :added

    def initialize
      @tree = nil
      @added = []
    end

    # What starts in the place of the step, as a tree in wire form; nil without.
    def node
      nodes = [*(@tree.nil? ? [] : [@tree]), *@added]
      return if nodes.empty?

      wires = nodes.map { |node| NewTree.read(node) }
      @added.empty? ? wires.first : {"__type__" => "group", "children" => wires}
    end
  end
end
