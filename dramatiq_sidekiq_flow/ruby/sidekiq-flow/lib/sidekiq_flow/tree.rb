# frozen_string_literal: true

module SidekiqFlow::Companion
  # Reads workflow trees: the nodes that a callback stack carries.
  module Tree
    MAX_DEPTH = 100

    # Milliseconds: 31,000 years. Redis cannot count with larger numbers.
    MAX_DELAY = 10**15

    # The option of a carrier, for a worker in Python, that holds a group which needs some of its members.
    GROUP = "swf_group"

    NAME = ->(value) { value.is_a?(String) && value.length.between?(1, 255) }
    SECONDS = ->(value) { value.is_a?(Numeric) && value.abs <= MAX_DELAY / 1000 }

    # Fields that a push reads, or the failure of the pushed job. They may be null.
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
      # Raises InvalidNode for a tree that cannot be started. Called before the step
      # runs, since its work would be done in vain.
      def check(node, depth = 0)
        raise InvalidNode, "The workflow is nested too deep" if depth > MAX_DEPTH

        case node.is_a?(Hash) && node["__type__"]
        when "job" then check_job(node, depth)
        when "with_delay"
          raise InvalidNode, "Invalid delay: #{shown(node["delay"])}" unless delay?(node["delay"])

          check(node["task"], depth + 1)
        when "chain", "group" then children(node).each { |child| check(child, depth + 1) }
        else raise InvalidNode, "Invalid node of a workflow tree: #{shown(node)}"
        end
      end

      def delay?(value)
        value.is_a?(Numeric) && value.abs <= MAX_DELAY
      end

      def completes_at_once?(node)
        case node["__type__"]
        when "job", "reference" then false
        when "with_delay" then node["delay"].zero? && completes_at_once?(node["task"])
        else children(node).all? { |child| completes_at_once?(child) }
        end
      end

      # Whether a node, valid or not, has a job in it.
      def job?(node)
        return false unless node.is_a?(Hash)

        node["__type__"] == "job" || [*node["children"], node["task"]].any? { |child| job?(child) }
      end

      def children(node)
        found = node["children"]
        return found if %w[chain group].include?(node["__type__"]) && found.is_a?(Array)

        raise InvalidNode, "Invalid node of a workflow tree: #{shown(node)}"
      end

      # The shortest time that a tree waits, in milliseconds.
      def total_delay(node)
        case node["__type__"]
        when "job" then delay_of_job(node)
        when "reference" then node.fetch("delay", 0)
        when "with_delay" then [0, node["delay"]].max + total_delay(node["task"])
        when "chain" then children(node).sum { |child| total_delay(child) }
        else children(node).map { |child| total_delay(child) }.max || 0
        end
      end

      # Yields the jobs of a tree, valid or not, in order; those of a fallback come after its
      # step.
      def jobs(node, &block)
        yield node if node["__type__"] == "job"
        [*node["children"], node["task"], node[Replacement::POLICY]].grep(Hash) { |part| jobs(part, &block) }
      end

      # How many jobs a tree has, without those of fallbacks.
      def count(node)
        return 1 if node["__type__"] == "job" && !node[GROUP]

        [*node["children"], node["task"], node[GROUP]].compact.sum { |child| count(child) }
      end

      private

      def check_job(node, depth)
        name, args = node.values_at("class", "args")
        queue = node.fetch("queue", "-")
        at = node.fetch("at", 0)
        raise InvalidNode, "A job needs the name of a class, not #{shown(name)}" unless NAME.call(name)
        raise InvalidNode, "The args of #{name} are not an array: #{shown(args)}" unless args.is_a?(Array)
        raise InvalidNode, "The queue of #{name} is not a name: #{shown(queue)}" unless NAME.call(queue)
        raise InvalidNode, "The at of #{name} is not a time: #{shown(at)}" unless SECONDS.call(at)

        field, = READ_BY_PUSH.find { |key, readable| !node[key].nil? && !readable.call(node[key]) }
        raise InvalidNode, "The #{field} of #{name} cannot be read: #{shown(node[field])}" if field

        policy = node[Replacement::POLICY]
        check(policy, depth + 1) unless policy.nil? || policy == Replacement::COUNTS_AS_DONE
        check(node[GROUP], depth + 1) if node.key?(GROUP)
      end

      def delay_of_job(node)
        at = node["at"]
        inside = node[GROUP] || node[Replacement::POLICY]
        wait = at.is_a?(Numeric) ? [0, (at - Time.now.to_f) * 1000].max : 0
        inside.is_a?(Hash) ? wait + total_delay(inside) : wait
      end

      def shown(value)
        value.inspect[0, 200]
      end
    end
  end
end
