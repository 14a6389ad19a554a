# frozen_string_literal: true

module Sidekiq
  module Workflow
    # Named, typed values, checked when made:
    #
    #   class Input < Sidekiq::Workflow::Schema
    #     required :doc_id, String
    #     required :model, String, default: "small"
    #   end
    class Schema
      class ValidationError < ArgumentError; end

      Field = Struct.new(:name, :types, :required, :default)
      NO_DEFAULT = Object.new.freeze
      private_constant :NO_DEFAULT

      class << self
        # Own fields after those of the schema that it is made from.
        def fields
          inherited = (superclass <= Schema) ? superclass.fields : {}
          inherited.merge(@fields || {})
        end

        def required(name, *types, default: NO_DEFAULT)
          declare(name, types, true, default)
        end

        def optional(name, *types, default: nil)
          declare(name, types, false, default)
        end

        private

        def declare(name, types, required, default)
          (@fields ||= {})[name.to_s] = Field.new(name.to_s, types.flatten, required, default)
          define_method(name) { @values[name.to_s] }
        end
      end

      def initialize(values = {})
        given = values.to_h.transform_keys(&:to_s)
        @values = self.class.fields.transform_values { |field| value_of(field, given) }
      end

      def [](name)
        @values[name.to_s]
      end

      def to_h
        @values.dup
      end

      private

      def value_of(field, given)
        value = given.fetch(field.name) { field.default }
        raise ValidationError, "#{self.class}: #{field.name} is missing" if value.equal?(NO_DEFAULT)
        return value if value.nil? && !field.required
        return value if field.types.empty? || field.types.any? { |type| type === value }

        raise ValidationError, "#{self.class}: #{field.name} must be #{field.types.join(" or ")}, got #{value.inspect}"
      end
    end
  end
end
