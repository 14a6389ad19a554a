# frozen_string_literal: true

module SidekiqFlow::Companion
  CONSTANT = /\A[A-Z]\w*(::[A-Z]\w*)*\z/

  # What starting a node writes, worked out to the end (Python's twin of this is
  # workflow/plan.py):
  #
  # * a job is pushed with the stack, to `schedule` when it is delayed;
  # * a chain makes a barrier of 1 for what remains, and starts its first child;
  # * a group makes a barrier of its size, and starts every child;
  # * an empty one completes at once; delayed, it becomes a NoopWorker job.
  #
  # A step whose class is no Ruby constant is one of the other language: it goes
  # as it stands in the tree, with Sidekiq's defaults for what is not said.
  class Plan
    include Sidekiq::JobUtil

    # A plan with more jobs or barriers, or with more bytes, is staged first, so
    # that no single script holds Redis up for long.
    MAX_INLINE = 1000
    MAX_BYTES_INLINE = 1024 * 1024

    MAX_DEPTH = 100

    # Milliseconds: 31,000 years. Larger numbers are beyond what Redis counts.
    MAX_DELAY = 10**15

    NAME = ->(value) { value.is_a?(String) && value.length.between?(1, 255) }
    SECONDS = ->(value) { value.is_a?(Numeric) && value.abs <= MAX_DELAY / 1000 }

    # What a push reads, or the failure of what was pushed. They may be null.
    READ_BY_PUSH = {
      "jid" => NAME,
      "retry" => ->(value) { value == true || value == false || value.is_a?(Integer) },
      "retry_queue" => NAME,
      "retry_for" => SECONDS,
      "tags" => ->(value) { value.is_a?(Array) },
      "wrapped" => NAME,
      "memory_namespace" => ->(value) { value.is_a?(String) }
    }.freeze

    class << self
      # Raises InvalidNode for a tree that could not be started. Better now than
      # when the work before it is done.
      def check(node, depth = 0)
        raise InvalidNode, "The workflow is nested too deep" if depth > MAX_DEPTH

        case node.is_a?(Hash) && node["__type__"]
        when "job" then check_job(node)
        when "with_delay"
          raise InvalidNode, "This is not a delay: #{node["delay"].inspect[0, 200]}" unless delay?(node["delay"])

          check(node["task"], depth + 1)
        when "chain", "group" then children(node).each { |child| check(child, depth + 1) }
        else raise InvalidNode, "This is not part of a workflow tree: #{node.inspect[0, 200]}"
        end
      end

      def delay?(value)
        value.is_a?(Numeric) && value.abs <= MAX_DELAY
      end

      def completes_at_once?(node)
        case node["__type__"]
        when "job" then false
        when "with_delay" then node["delay"].zero? && completes_at_once?(node["task"])
        else children(node).all? { |child| completes_at_once?(child) }
        end
      end

      def check_job(node)
        raise InvalidNode, "A job needs the name of a class, not #{node["class"].inspect[0, 200]}" unless NAME.call(node["class"])
        raise InvalidNode, "The args of #{node["class"]} are not an array: #{node["args"].inspect[0, 200]}" unless node["args"].is_a?(Array)
        raise InvalidNode, "The queue of #{node["class"]} is not a name: #{node["queue"].inspect[0, 200]}" unless NAME.call(node.fetch("queue", "-"))
        raise InvalidNode, "The at of #{node["class"]} is not a time: #{node["at"].inspect[0, 200]}" unless SECONDS.call(node.fetch("at", 0))

        name, = READ_BY_PUSH.find { |key, readable| !node[key].nil? && !readable.call(node[key]) }
        raise InvalidNode, "The #{name} of #{node["class"]} cannot be read: #{node[name].inspect[0, 200]}" if name
      end

      # Seconds that barriers must live: all delays ahead, and a job's retries.
      def barrier_ttl(node, stack)
        trees = [*stack.map(&:remaining), node].compact
        [RETRY_HORIZON + (trees.sum { |tree| total_delay(tree) } / 1000.0).to_i + 1, MAX_TTL].min
      end

      def children(node)
        found = node["children"]
        return found if %w[chain group].include?(node["__type__"]) && found.is_a?(Array)

        raise InvalidNode, "This is not part of a workflow tree: #{node.inspect[0, 200]}"
      end

      # Milliseconds.
      def total_delay(node)
        case node["__type__"]
        when "job" then node["at"].is_a?(Numeric) ? [0, (node["at"] - Time.now.to_f) * 1000].max : 0
        when "reference" then node.fetch("delay", 0)
        when "with_delay" then [0, node["delay"]].max + total_delay(node["task"])
        when "chain" then children(node).sum { |child| total_delay(child) }
        else children(node).map { |child| total_delay(child) }.max || 0
        end
      end
    end

    def initialize(node, stack, run_id:, finished:, queue:, config:)
      @run_id = run_id
      @finished = finished
      @queue = queue
      @config = config
      @now = Time.now.to_f
      @ttl = Plan.barrier_ttl(node, stack)
      @dialect = SidekiqFlow::Companion.dialect
      @inherited = SidekiqFlow::Companion.inherited(finished)
      # The tag by which Sidekiq's Web UI finds a run's jobs.
      @tags = Array(finished["tags"]) & ["wf:#{run_id.to_s[0, 8]}"]
      @barriers = {}
      @pushes = Hash.new { |queues, name| queues[name] = [] }
      @scheduled = []
      @jids = Set.new
      start(node, stack, 0)
    end

    # [keys, arguments] as _plan.lua reads them. A large plan is staged now.
    def writes
      return staged if fanout?

      keys = [*@barriers.keys.flat_map { |id| [id, "#{id}_ran"] }, *@pushes.keys.map { |queue| "queue:#{queue}" }]
      arguments = [@barriers.size, *barriers.flat_map { |_, ttl, value, ran| [ttl, value, ran] },
        @pushes.size, *@pushes.flat_map { |queue, jobs| [queue, jobs.size, *jobs] },
        @scheduled.size, *@scheduled.flatten, 0]
      [keys, arguments]
    end

    # Whether it is too large for one script.
    def fanout?
      jobs = @pushes.sum { |_, pushed| pushed.size } + @scheduled.size
      # A single job gains nothing: it is one element in any way.
      [jobs, @barriers.size].max > MAX_INLINE || (jobs > 1 && bytes > MAX_BYTES_INLINE)
    end

    private

    # Starts a node; true when it completes at once.
    def start(node, stack, delay)
      case node["__type__"]
      when "with_delay" then start(node["task"], stack, delay + node["delay"])
      when "job" then push(node, stack, delay)
      else
        children = Plan.children(node)
        if children.empty?
          delay.zero? || push({"class" => @dialect.noop_class, "args" => [], "retry" => 0, "queue" => noop_queue}, stack, delay)
        elsif node["__type__"] == "group"
          start_group(children, stack, delay)
        else
          start_chain(children, stack, delay)
        end
      end
    end

    def start_chain(children, stack, delay)
      until children.empty?
        first, *rest = children
        return start(first, stack, delay) if rest.empty?

        barrier = make_barrier(1)
        remaining = Callback.new(barrier, {"__type__" => "chain", "children" => rest}, false)
        return false unless start(first, [*stack, remaining], delay)

        # It completed at once: what remains starts now, and without the delay,
        # which was the first child's.
        @barriers[barrier] = [0, 0]
        children = rest
        delay = 0
      end
      true
    end

    def start_group(children, stack, delay)
      barrier = make_barrier(children.size)
      below = [*stack, Callback.new(barrier, nil, true)]
      left = children.count { |child| !start(child, below, delay) }
      @barriers[barrier] = left.zero? ? [0, 0] : [left, -1]
      left.zero?
    end

    def make_barrier(value)
      SecureRandom.uuid.tap { |id| @barriers[id] = [value, -1] }
    end

    # As Sidekiq::Client#push, client middleware included, but kept for the
    # script to write. False: a job does not complete at once.
    def push(node, stack, delay)
      job_class = constant(node["class"]) || node["class"]
      # What was said of this very job comes last: a tenant given to the step is
      # not overwritten.
      item = @inherited.merge(node, "class" => job_class)
      item.delete("__type__")
      item[@dialect.run_id] = @run_id
      item[@dialect.callbacks] = stored(stack) unless stack.empty?
      item["at"] = @now + delay / 1000.0 if delay > 0
      # An id that was given is kept, and no barrier counts the same id twice.
      item.delete("jid") unless item["jid"].is_a?(String) && @jids.add?(item["jid"])
      item = normalized(item)
      item["tags"] = Array(item["tags"]) | @tags unless @tags.empty?
      payload = Pushes.planned do
        @config.client_middleware.invoke(job_class, item, item["queue"], @config.redis_pool) { item }
      end
      raise PushStopped, "A client middleware did not let #{node["class"]} be pushed" unless payload.is_a?(Hash)

      at = payload.delete("at")
      if at
        @scheduled << [at.to_s, Sidekiq.dump_json(payload.reject { |key, _| key == "enqueued_at" })]
      else
        payload["enqueued_at"] = SidekiqFlow::Companion.stamp(@now)
        @pushes[payload["queue"]] << Sidekiq.dump_json(payload)
      end
      false
    end

    def normalized(item)
      normalize_item(item)
    rescue ArgumentError => error
      raise InvalidNode, error.message
    end

    # The Ruby job class of that name, for the sake of its sidekiq_options.
    def constant(name)
      raise InvalidNode, "A job needs the name of a class, not #{name.inspect}" unless name.is_a?(String)
      return nil unless name.match?(CONSTANT) && Object.const_defined?(name)

      found = Object.const_get(name)
      found if found.is_a?(Class) && found.respond_to?(:get_sidekiq_options)
    rescue TypeError # A::B, and A is no module
      nil
    end

    # All children of a group share one stack: it is stored once.
    def stored(stack)
      unless stack.equal?(@stored_stack)
        @stored_stack = stack
        @stored = SidekiqFlow::Companion.gem.configuration.callback_storage.store(stack.map(&:to_a))
      end
      @stored
    end

    # A queue that somebody consumes, for a job that does nothing: `default`, as
    # the gem has it, else the one that the finished job came from.
    def noop_queue
      config = @config.respond_to?(:capsules) ? @config : @config.config # that of a capsule
      consumed = config.capsules.each_value.flat_map(&:queues)
      consumed.include?("default") ? "default" : @queue
    end

    def bytes
      @pushes.sum { |_, jobs| jobs.sum(&:bytesize) } + @scheduled.sum { |_, payload| payload.bytesize }
    end

    # [id, ttl, value, ran] of each.
    def barriers
      @barriers.map { |id, (value, ran)| [id, value.zero? ? RELEASED_TTL : @ttl, value, ran] }
    end

    def staged
      elements = elements_to_stage
      id = @config.redis { |conn| Fanouts.stage(conn, elements) }
      queues = @scheduled.empty? ? @pushes.keys : [*@pushes.keys, ""]
      [[Fanouts.key(id), Fanouts::FANOUTS], [0, 0, 0, 1, id, elements.size, queues.size, *queues]]
    end

    # The list of stage.lua.
    def elements_to_stage
      [
        *barriers.map { |id, ttl, value, ran| "b#{ttl} #{value} #{ran} #{id}" },
        *@pushes.flat_map { |queue, jobs| ["q#{queue}", *jobs] },
        *@scheduled.map { |at, payload| "s#{at} #{payload}" }
      ]
    end
  end
end
