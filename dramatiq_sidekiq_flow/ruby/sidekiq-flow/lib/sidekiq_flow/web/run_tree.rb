# frozen_string_literal: true

module SidekiqFlow::Web
  # The tree of a run, as its record holds it. Steps are numbered in written order from
  # 1; a repeated node takes the numbers of its steps once for each repetition.
  class RunTree
    # Most steps of a tree, most nodes inside of each other, and the depth of lines from
    # which trees that replaced steps are not shown below them.
    MOST_STEPS = 10_000_000
    MOST_NESTED = 500
    MOST_DEEP = 100

    # +kind+: :step, :chain, :group, :delay, :times; :catch, whose children are a step and
    # its fallback; :grown, whose children are the tree of the start and those that replaced
    # steps of it; or :replacement, of which the child is such a tree; +steps+: its number of
    # steps; +starts+: number of steps in front of each child; +value+: the JSON object.
    Node = Struct.new(:kind, :steps, :children, :starts, :value) do
      def step?
        kind == :step
      end

      # The node that a delayed or a repeated one holds.
      def child
        children.first
      end

      def name
        RunRecord.text(value["step"])
      end

      def queue
        RunRecord.text(value["queue"])
      end

      def args
        RunRecord.text(value["args"])
      end

      def ruby?
        value["ruby"] == true
      end

      def times
        value["times"]
      end

      # How many members of a group the run needs; nil if it needs all.
      def need
        value["need"]
      end

      # Number of members of a group.
      def members
        children.sum { |child| child.kind == :times ? child.times : 1 }
      end

      # Seconds.
      def delay
        value["delay"] / 1000.0
      end
    end

    # One line of the tree. +node+ begins with the step +number+.
    Line = Struct.new(:node, :number, :depth)

    class Invalid < StandardError; end

    # The tree of a JSON text; nil if it is not one. +added+: number of a step -> JSON of the
    # tree that replaced it, with the number of its first step.
    def self.parse(json, added = {})
      new(grown(node(JSON.parse(json, max_nesting: MOST_NESTED)), added))
    rescue JSON::ParserError, Invalid
      nil
    end

    def self.node(value)
      raise Invalid unless value.is_a?(Hash)

      kind = %w[step chain group delay times catch].find { |key| value.key?(key) }
      raise Invalid unless kind

      send(:"read_#{kind}", value)
    end

    class << self
      private

      def read_step(value)
        Node.new(:step, 1, [], [], value)
      end

      def read_chain(value, kind = "chain")
        raise Invalid unless value[kind].is_a?(Array)

        children = value[kind].map { |child| node(child) }
        count = 0
        starts = children.map { |child| (count += child.steps) - child.steps }
        Node.new(kind.to_sym, counted(count), children, starts, value["need"].is_a?(Integer) ? value.slice("need") : {})
      end

      def read_group(value)
        read_chain(value, "group")
      end

      def read_delay(value)
        raise Invalid unless value["delay"].is_a?(Numeric)

        child = node(value["node"])
        Node.new(:delay, child.steps, [child], [0], value)
      end

      def read_times(value)
        raise Invalid unless value["times"].is_a?(Integer) && value["times"].positive?

        child = node(value["node"])
        Node.new(:times, counted(value["times"] * child.steps), [child], [0], value)
      end

      def read_catch(value)
        children = [node(value["catch"]), node(value["fallback"])]
        raise Invalid unless children.first.step?

        Node.new(:catch, counted(1 + children.last.steps), children, [0, 1], {})
      end

      # A tree with those that replaced steps; those that cannot be read are left out.
      def grown(root, added)
        parts = added.map { |number, json| replacement(number, json) }.compact.sort_by(&:first)
        parts = parts.select.with_index { |(first, _), index| first > ends(root, parts.first(index)) }
        return root if parts.empty?

        children = [root, *parts.map(&:last)]
        Node.new(:grown, counted(ends(root, parts)), children, [0, *parts.map { |first, _| first - 1 }], {})
      end

      # The number of the last step of all parts.
      def ends(root, parts)
        [root.steps, *parts.map { |first, tree| first - 1 + tree.steps }].max
      end

      # The number of the first step, and the node; nil if it cannot be read.
      def replacement(number, json)
        value = JSON.parse(json, max_nesting: MOST_NESTED)
        raise Invalid unless value.is_a?(Hash) && value["first"].is_a?(Integer)

        tree = node(value["tree"])
        [value["first"], Node.new(:replacement, tree.steps, [tree], [0], {"step" => number})]
      rescue JSON::ParserError, Invalid
        nil
      end

      def counted(count)
        raise Invalid if count > MOST_STEPS

        count
      end
    end

    attr_reader :root

    def initialize(root)
      @root = root
    end

    # Number of steps.
    def steps
      root.steps
    end

    # Yields the lines of the tree: one for each chain, group, delay and step, and one
    # for the repetitions of a node. A tree that replaced a step is below it; at the end, if
    # the step has no line of its own.
    def each_line(&block)
      return to_enum(:each_line) unless block

      walk(root, 1, 0, &block)
    end

    private

    def walk(node, number, depth, &block)
      return walk_grown(node, depth, &block) if node.kind == :grown

      yield Line.new(node, number, depth)
      return if node.kind == :times

      walk_children(node, number, depth + 1, &block)
      walk_replacement(number, depth + 1, &block) if node.step? && depth < MOST_DEEP
    end

    def walk_grown(node, depth, &block)
      start, *parts = node.children.zip(node.starts)
      @replacements = parts.to_h { |part, before| [part.value["step"], [part, before + 1]] }
      walk(start.first, 1, depth, &block)
      walk_replacement(@replacements.keys.first, depth, &block) until @replacements.empty?
    end

    # The tree that replaced a step, if it is not shown yet.
    def walk_replacement(step, depth, &block)
      part, number = @replacements&.delete(step)
      walk(part, number, depth, &block) if part
    end

    def walk_children(node, number, depth, &block)
      node.children.zip(node.starts) { |child, start| walk(child, number + start, depth, &block) }
    end
  end
end
