# frozen_string_literal: true

module SidekiqFlow::Companion
  # Writes the compact tree of a run, which its record keeps, of a tree in wire form
  # (Python's twin is wire/run_tree.py, which describes it and writes the same).
  class CompactTree
    # More equal siblings than this are folded into one node.
    MOST_ALIKE = 20

    # A tree with more steps that are not folded is written without arguments.
    MOST_WITH_ARGS = 1000

    NOOPS = DIALECTS.map(&:noop_class).freeze

    # Classes of jobs that +wrapped+ names.
    WRAPPERS = [*NOOPS, "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper", "Sidekiq::ActiveJob::Wrapper"].freeze

    # The beginning of the name of a step that waits for a signal.
    WAIT = "wait for "

    class << self
      # The compact tree, as JSON.
      #
      # node     a tree as JSON reads it
      # args     false leaves out the arguments of the steps. They are left out in large
      #          trees, too
      # is_ruby  job in wire form -> whether Ruby runs it; by default its class says so
      def dump(node, args: true, is_ruby: method(:ruby?))
        JSON.generate(new(is_ruby).tree(node, args))
      end

      # The tree that runs in the place of a step that is dead, or nil.
      def fallback_of(job)
        policy = job[Replacement::POLICY]
        policy if policy.is_a?(Hash)
      end

      # Whether Ruby runs a job: its class is neither the no-op, which carries a step of
      # Python, nor a stub that says RUNS_IN_PYTHON.
      def ruby?(job)
        name = job["class"]
        return false if NOOPS.include?(name) || !name.match?(Plan::CONSTANT)

        !(Object.const_defined?(name) && python?(Object.const_get(name)))
      rescue NameError, TypeError # A::B, and A is not a module
        true
      end

      private

      def python?(found)
        found.is_a?(Class) && found.const_defined?(:RUNS_IN_PYTHON)
      end
    end

    def initialize(is_ruby)
      @is_ruby = is_ruby
      # Equal nodes have the same shape, a number. Of each shape: what is written for it
      # without arguments; [shape, number] of its equal children; steps that are not folded.
      @nodes = []
      @runs = []
      @steps = []
      @shapes = {}
      # The shape of each node by its identity.
      @known = {}.compare_by_identity
    end

    def tree(node, args)
      shape = shape(node)
      (args && @steps[shape] <= MOST_WITH_ARGS) ? written(node) : @nodes[shape]
    end

    private

    def shape(node)
      @known[node] = new_shape(node)
    end

    def new_shape(node)
      case node["__type__"]
      when "job" then self.class.fallback_of(node) ? shape_of_catch(node) : shape_of_job(node)
      when "with_delay" then shape_of_delay(node)
      else shape_of_branch(node)
      end
    end

    def shape_of_job(job)
      may_fail = job[Replacement::POLICY] == Replacement::COUNTS_AS_DONE
      key = [:job, job["class"], job["queue"], job["wrapped"], may_fail]
      @shapes[key] ||= begin
        written = {"step" => name_of(job)}
        written["queue"] = job["queue"] unless job["queue"].to_s.empty?
        written["ruby"] = true if @is_ruby.call(job)
        written["may_fail"] = true if may_fail
        add(written, [], 1)
      end
    end

    def shape_of_catch(job)
      step = shape_of_job(job)
      fallback = shape(self.class.fallback_of(job))
      @shapes[[:catch, step, fallback]] ||= add({"catch" => @nodes[step], "fallback" => @nodes[fallback]},
        [[step, 1], [fallback, 1]], 1 + @steps[fallback])
    end

    def shape_of_delay(node)
      inner = shape(node["task"])
      # 5 and 5.0 are one delay.
      @shapes[[:delay, node["delay"].to_r, inner]] ||=
        add({"delay" => node["delay"], "node" => @nodes[inner]}, [[inner, 1]], @steps[inner])
    end

    def shape_of_branch(node)
      runs = node["children"].map { |child| shape(child) }.chunk_while(&:eql?).map { |alike| [alike[0], alike.size] }
      @shapes[[node["__type__"], *runs]] ||= begin
        steps = runs.sum { |shape, times| @steps[shape] * ((times <= MOST_ALIKE) ? times : 1) }
        children = runs.flat_map { |shape, times| folded(shape, times) || Array.new(times, @nodes[shape]) }
        add({node["__type__"] => children}, runs, steps)
      end
    end

    # [the node of equal siblings], if there are so many.
    def folded(shape, times)
      [{"times" => times, "node" => @nodes[shape]}] if times > MOST_ALIKE
    end

    def add(written, runs, steps)
      @nodes << written
      @runs << runs
      @steps << steps
      @nodes.size - 1
    end

    # A node with the arguments of the steps that are not folded.
    def written(node)
      case node["__type__"]
      when "job" then written_job(node)
      when "with_delay" then {"delay" => node["delay"], "node" => written(node["task"])}
      else {node["__type__"] => written_children(node)}
      end
    end

    def written_job(job)
      without = @nodes[@known[job]]
      fallback = self.class.fallback_of(job)
      return with_args(without, job) if fallback.nil?

      {"catch" => with_args(without["catch"], job), "fallback" => written(fallback)}
    end

    def with_args(step, job)
      text = job["wrapped"].to_s.start_with?(WAIT) ? "" : PythonText.shown(job["args"])
      text.empty? ? step : step.merge("args" => text)
    end

    def written_children(node)
      children = node["children"].each
      @runs[@known[node]].flat_map do |shape, times|
        alike = Array.new(times) { children.next }
        folded(shape, times) || alike.map { |child| written(child) }
      end
    end

    # Its class, or the actor or class that a wrapper carries.
    def name_of(job)
      wrapped = job["wrapped"]
      (wrapped.is_a?(String) && !wrapped.empty? && WRAPPERS.include?(job["class"])) ? wrapped : job["class"]
    end
  end
end
